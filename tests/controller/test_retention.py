"""What is removed of endpoints and instances that are gone, and when: the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.controller.retention import (
    ENVIRONMENT_SECONDS,
    MAX_LOG_BYTES_PER_ACCOUNT,
    KeptLog,
    judge_environments,
    logs_to_remove,
)
from moorage.resources import EndpointStatus

NOW = 1_000_000_000.0
DAY = 86400.0
OLD, NEW = "20260101T000000.000000Z", "20260102T000000.000000Z"
THERE = {("1", "e", NEW): EndpointStatus.IN_SERVICE, ("1", "failed", NEW): EndpointStatus.FAILED}


def log(
    instance_id: str = "i", *, days: float, endpoint: str = "e", incarnation: str = NEW, size: int = 1
) -> KeptLog:
    return KeptLog(
        path=f"{endpoint}/{incarnation}/{instance_id}",
        account_id="1",
        endpoint_name=endpoint,
        incarnation=incarnation,
        instance_id=instance_id,
        modified=NOW - days * DAY,
        size=size,
    )


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        (log(days=6.9), False),
        (log(days=7), True),
        (log("running", days=100), False),
        (log(days=6.9, incarnation=OLD), False),
        (log(days=8, incarnation=OLD), True),
        (log(days=8, incarnation=""), True),
        (log(days=8, endpoint="failed"), False),
        (log(days=8, endpoint="failed", incarnation=OLD), True),
        (log(days=8, endpoint="deleted"), True),
        (log("", days=8), True),
        (log(days=-1), False),
    ],
)
def test_the_log_of_an_instance_that_is_gone_is_kept_for_a_time(kept: KeptLog, removed: bool) -> None:
    asked = {"endpoints": THERE, "instances": {"running"}, "now": NOW, "keep_seconds": 7 * DAY}
    assert logs_to_remove([kept], **asked) == ([kept] if removed else [])  # type: ignore[arg-type]


def test_beyond_a_sum_the_oldest_logs_of_an_account_go_first() -> None:
    third = MAX_LOG_BYTES_PER_ACCOUNT // 3
    logs = [log(f"i-{days}", days=days, size=third, endpoint="failed") for days in (3, 1, 4, 2)]
    running = log("running", days=0, size=10 * MAX_LOG_BYTES_PER_ACCOUNT)
    found = logs_to_remove(
        [*logs, running], endpoints=THERE, instances={"running"}, now=NOW, keep_seconds=7 * DAY
    )
    assert [each.instance_id for each in found] == ["i-4"]


@pytest.mark.parametrize(
    ("age", "keep", "removed", "touched"),
    [
        (ENVIRONMENT_SECONDS - 1, DAY, False, False),
        (ENVIRONMENT_SECONDS, DAY, True, False),
        (10, 10, True, False),
        (9, 10, False, False),
        (-5, 0, False, True),
    ],
)
def test_an_environment_goes_soon_after_its_last_use(
    age: float, keep: float, removed: bool, touched: bool
) -> None:
    found = {"unused": NOW - age, "used": NOW - age}
    decision = judge_environments(found, used={"used", "not made yet"}, now=NOW, keep_seconds=keep)
    assert decision.removed == ({"unused"} if removed else set())
    assert decision.touched == ({"unused", "used"} if touched else {"used"})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(-DAY, DAY)),
    st.sets(st.sampled_from("abcdef")),
    st.floats(0, DAY),
)
def test_what_is_used_is_never_removed(found: dict[str, float], used: set[str], keep: float) -> None:
    decision = judge_environments(found, used=used, now=0.0, keep_seconds=keep)
    assert not decision.removed & used
    assert decision.removed | decision.touched <= set(found)
    logs = [log(name, days=(NOW - time) / DAY) for name, time in found.items()]
    removed = logs_to_remove(logs, endpoints=THERE, instances=used, now=NOW, keep_seconds=keep)
    assert not {each.instance_id for each in removed} & used
