"""The rules of an instance's life."""

import pytest

from moorage.launchers.base import InstanceStatus
from moorage.launchers.lifecycle import (
    TRANSITIONS,
    Health,
    IllegalTransition,
    PingOutcome,
    backoff_seconds,
    check_transition,
    deaths_in_a_row,
    probe_pause_seconds,
    status_after_death,
)

S = InstanceStatus


def test_every_status_has_its_rules() -> None:
    assert set(TRANSITIONS) == {None, *InstanceStatus}


def test_every_status_can_be_reached_and_all_but_the_last_left() -> None:
    assert set().union(*TRANSITIONS.values()) == set(InstanceStatus)
    assert [status for status, after in TRANSITIONS.items() if not after] == [S.STOPPED]


def test_every_living_instance_can_be_stopped() -> None:
    living = set(InstanceStatus) - {S.STOPPING, S.STOPPED}
    assert all(S.STOPPING in TRANSITIONS[status] for status in living)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, S.IN_SERVICE), (S.FAILED, S.STARTING), (S.STOPPING, S.IN_SERVICE), (S.STOPPED, S.STARTING)],
)
def test_a_wrong_step_is_refused(before: InstanceStatus | None, after: InstanceStatus) -> None:
    with pytest.raises(IllegalTransition, match=after):
        check_transition(before, after)


def test_only_what_never_worked_is_given_up() -> None:
    assert status_after_death(ever_healthy=False, keep_trying=False) is S.FAILED
    assert status_after_death(ever_healthy=True, keep_trying=False) is S.RESTARTING
    assert status_after_death(ever_healthy=False, keep_trying=True) is S.RESTARTING


def test_backoff_doubles_from_a_tenth_of_a_second_to_thirty() -> None:
    assert [backoff_seconds(n) for n in (1, 2, 3, 9)] == [0.1, 0.2, 0.4, 25.6]
    assert backoff_seconds(10) == backoff_seconds(10_000) == 30.0


def test_a_stable_minute_resets_the_count_of_deaths() -> None:
    assert deaths_in_a_row(4, 59.9) == 5
    assert deaths_in_a_row(4, 60.0) == 1


def test_the_pause_between_pings_grows_with_the_time_a_start_takes() -> None:
    assert [probe_pause_seconds(t) for t in (0, 0.5, 2, 5, 100)] == [0.05, 0.05, 0.2, 0.5, 0.5]


def is_unhealthy(health: Health, now: float) -> bool:
    return health.is_unhealthy(now, unhealthy_after=3, silent_seconds=180)


@pytest.mark.parametrize("outcome", [PingOutcome.REFUSED, PingOutcome.WRONG, PingOutcome.BROKEN])
def test_three_errors_in_a_row_are_believed(outcome: PingOutcome) -> None:
    health = Health(last_good=0)
    for now in (5.0, 10.0):
        health = health.after(outcome, now)
        assert not is_unhealthy(health, now)
    assert is_unhealthy(health.after(outcome, 15), 15)


def test_one_good_answer_forgives_the_errors() -> None:
    health = Health(last_good=0)
    for outcome in (
        PingOutcome.WRONG,
        PingOutcome.WRONG,
        PingOutcome.OK,
        PingOutcome.WRONG,
        PingOutcome.WRONG,
    ):
        health = health.after(outcome, 1)
    assert not is_unhealthy(health, 1)


def test_silence_is_borne_for_three_minutes() -> None:
    health = Health(last_good=0)
    for now in range(7, 180, 7):
        health = health.after(PingOutcome.SILENT, now)
        assert not is_unhealthy(health, now)
    assert is_unhealthy(health.after(PingOutcome.SILENT, 182), 182)
