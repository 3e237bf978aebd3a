"""When what failed is tried again, and when it is told again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.controller.retries import Repetitions, pause_before_retry


@pytest.mark.parametrize(
    ("failures", "waiting", "chance", "seconds"),
    [
        (1, 1, 0.5, 2.0),
        (2, 1, 0.5, 4.0),
        (5, 1, 0.5, 32.0),
        (6, 1, 0.5, 60.0),
        (10**6, 1, 0.5, 60.0),
        (1, 1, 0.0, 1.5),
        (1, 1, 1.0, 2.5),
        (1, 900, 0.5, 300.0),
        (9, 180, 0.5, 60.0),
        (9, 1800, 1.0, 750.0),
    ],
)
def test_the_pause_doubles_and_grows_with_those_who_wait(
    failures: int, waiting: int, chance: float, seconds: float
) -> None:
    assert pause_before_retry(failures, waiting, chance) == seconds


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.floats(0, 1))
def test_a_pause_is_bounded_and_never_shrinks(failures: int, waiting: int, chance: float) -> None:
    pause = pause_before_retry(failures, waiting, chance)
    assert 1.5 <= pause <= 1.25 * max(60.0, waiting / 3)
    assert pause <= pause_before_retry(failures + 1, waiting, chance)
    assert pause <= pause_before_retry(failures, waiting + 1, chance)
    assert waiting / pause <= 3 / 0.75 + 1e-9, "attempts a second of all of them"


def test_a_fault_is_told_once_in_its_interval() -> None:
    faults = Repetitions(interval_seconds=60.0)
    asked = [
        ("a", 0.0),
        ("a", 1.0),
        ("b", 2.0),
        ("a", 59.9),
        ("a", 60.0),
        ("a", 61.0),
        ("b", 61.0),
        ("b", 62.0),
    ]
    told = [(fault, now) for fault, now in asked if faults.is_new(fault, now)]
    assert told == [("a", 0.0), ("b", 2.0), ("a", 60.0), ("b", 62.0)]
