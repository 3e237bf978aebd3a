"""The lines of the server's own log: whose they are, and how many."""

import io
import logging
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.runtime.logs import CONTINUATION, LimitedHandler, LineFormatter, RepetitionLimit

OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} controller (INFO|WARNING|ERROR|CRITICAL) ")
FORGED = "2026-11-30T00:00:00+0000 controller ERROR all models were deleted"


def logger_to(handler: logging.Handler) -> logging.Logger:
    handler.setFormatter(LineFormatter("controller"))
    logger = logging.Logger("of a test")
    logger.addHandler(handler)
    return logger


def lines_of(work: str, *arguments: object, exc_info: BaseException | None = None) -> list[str]:
    stream = io.StringIO()
    logger_to(logging.StreamHandler(stream)).warning(work, *arguments, exc_info=exc_info)
    return stream.getvalue().split("\n")[:-1]


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\n\r\x0b\x85\u2028\x1b\x9b "))))
def test_nothing_that_is_logged_begins_a_line_of_ours(text: str) -> None:
    first, *others = lines_of("endpoint %s failed", f"{text}\n{FORGED}\r{FORGED}\u2028{FORGED}\x85{FORGED}")
    assert OURS.match(first)
    assert all(line.startswith(CONTINUATION) for line in others)
    assert not any(re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", line) for line in (first, *others))


def test_a_traceback_can_be_read_and_forges_nothing() -> None:
    try:
        raise ValueError(f"\x1b[2Jfrom outside\n{FORGED}")
    except ValueError as error:
        first, *others = lines_of("a step failed", exc_info=error)
    assert first.endswith(" controller WARNING a step failed")
    assert others[0] == f"{CONTINUATION}Traceback (most recent call last):"
    assert others[-2:] == [rf"{CONTINUATION}ValueError: \x1b[2Jfrom outside", f"{CONTINUATION}{FORGED}"]


def test_a_record_of_any_length_is_cut() -> None:
    (line,) = lines_of("%s", "x" * 1_000_000)
    assert len(line) == 32 * 1024
    assert line.endswith("x…")


@pytest.mark.parametrize("thread", [False, True])
def test_an_error_that_nobody_catches_forges_nothing_either(thread: bool) -> None:
    program = f"""
import threading, warnings
from moorage.runtime import logs

logs.configure("controller")
warnings.warn("a warning\\n{FORGED}")

def fail():
    raise ValueError("from outside\\n{FORGED}")

threading.Thread(target=fail).start() if {thread} else fail()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert lines.count(f"{CONTINUATION}{FORGED}") == 2
    assert all(OURS.match(line) or line.startswith(CONTINUATION) for line in lines), lines
    assert done.returncode == (0 if thread else 1)


# --- how many ----------------------------------------------------------------------------------------------


def test_a_kind_has_a_number_for_a_time_and_the_rest_is_counted() -> None:
    limit = RepetitionLimit(most=2, seconds=10)
    assert [limit.admit("a", 0), limit.admit("a", 1), limit.admit("a", 2), limit.admit("a", 9)] == [
        *(True, True),
        *(False, False),
    ]
    assert limit.admit("b", 9), "another kind has a number of its own"
    assert limit.take_ended(9.9) == {}
    assert limit.take_ended(10) == {"a": 2}
    assert limit.take_ended(30) == {}, "of b none was left out"
    assert limit.admit("a", 30)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=60), st.integers(1, 5))
def test_every_one_is_let_through_or_counted(events: list[tuple[str, float]], most: int) -> None:
    limit = RepetitionLimit(most=most, seconds=10)
    now, passed, counted = 0.0, {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for kind, pause in events:
        now += pause
        for ended, count in limit.take_ended(now).items():
            counted[str(ended)] += count
        passed[kind] += limit.admit(kind, now)
    for ended, count in limit.take_ended(float("inf")).items():
        counted[str(ended)] += count
    for kind in "ab":
        assert passed[kind] + counted[kind] == sum(each == kind for each, _ in events)
        assert passed[kind] <= most * (now // 10 + 1)


def burst(handler: LimitedHandler, size: int) -> None:
    logger = logger_to(handler)
    for number in range(size):
        logger.warning("invocation %d is tried again", number)
    logger.error("something else")


def test_a_burst_is_counted_in_one_line() -> None:
    stream = io.StringIO()
    handler = LimitedHandler(stream, RepetitionLimit(most=20, seconds=10))
    burst(handler, 234)
    handler.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 22
    assert lines[19].endswith(" WARNING invocation 19 is tried again")
    assert lines[20].endswith(" ERROR something else"), "another kind is not held up"
    assert lines[21].endswith(
        " WARNING … and 214 more like it in the last 10 s, the last: invocation 233 is tried again"
    )


def test_the_end_of_a_burst_is_told_though_nothing_else_is_logged() -> None:
    class Stream(io.StringIO):
        told = threading.Event()

        def write(self, text: str) -> int:
            if "more like it" in text:
                self.told.set()
            return super().write(text)

    handler = LimitedHandler(Stream(), RepetitionLimit(most=1, seconds=0.01))
    burst(handler, 3)
    assert Stream.told.wait(30)
    handler.close()
