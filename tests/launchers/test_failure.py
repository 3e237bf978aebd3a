"""The texts that tell people what went wrong."""

import signal

import pytest

from moorage.launchers.failure import MOST_CHARACTERS, compose, exit_phrase, memory_phrase, ping_phrase
from moorage.launchers.lifecycle import PingOutcome
from moorage.launchers.ping import PingResult


@pytest.mark.parametrize(
    ("returncode", "phrase"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-11, "was killed by signal 11 (SIGSEGV)"),
        (-50, "was killed by signal 50"),
    ],
)
def test_how_it_ended(returncode: int, phrase: str) -> None:
    assert exit_phrase(returncode) == phrase


def test_memory_is_named_only_where_it_is_likely() -> None:
    killed = -signal.SIGKILL
    assert "out-of-memory killer" in memory_phrase(killed, kernel_killed=True, log_tail=())
    assert memory_phrase(killed, kernel_killed=False, log_tail=()) == ""
    assert memory_phrase(-signal.SIGTERM, kernel_killed=True, log_tail=()) == ""
    assert "MemoryError" in memory_phrase(1, kernel_killed=False, log_tail=("a", "MemoryError"))
    assert memory_phrase(0, kernel_killed=False, log_tail=("MemoryError",)) == ""


@pytest.mark.parametrize(
    ("result", "listening", "phrase"),
    [
        (PingResult(outcome=PingOutcome.REFUSED), {}, "it did not open port 9000"),
        (
            PingResult(outcome=PingOutcome.REFUSED),
            {8080: {"0100007F"}},
            "it did not open port 9000 but listens on port 8080; the port to use is in SAGEMAKER_BIND_TO_PORT",
        ),
        (
            PingResult(outcome=PingOutcome.REFUSED),
            {9000: {"0200007F"}},
            "it did not open port 9000 on 127.0.0.1, only on another address",
        ),
        (PingResult(outcome=PingOutcome.SILENT), {}, "it did not answer /ping within 2 seconds"),
        (
            PingResult(outcome=PingOutcome.WRONG, status=503, detail="loading"),
            {},
            "it answered /ping with 503 (loading)",
        ),
        (PingResult(outcome=PingOutcome.WRONG, status=404), {}, "it answered /ping with 404"),
    ],
)
def test_why_it_is_not_healthy(result: PingResult, listening: dict[int, set[str]], phrase: str) -> None:
    assert ping_phrase(result, host="127.0.0.1", port=9000, timeout_seconds=2, listening=listening) == phrase


def test_the_text_holds_what_happened_the_last_lines_and_the_log() -> None:
    assert compose("It exited.", log_tail=("one", "two"), log_file="/logs/i.log") == (
        "It exited.\nLast lines of its log:\none\ntwo\nLog: /logs/i.log"
    )
    assert compose("It exited.", log_tail=(), log_file="/logs/i.log") == "It exited.\nLog: /logs/i.log"


@pytest.mark.parametrize("what_length", [10, 500, 5000])
@pytest.mark.parametrize("line_length", [1, 100, 250, 5000])
@pytest.mark.parametrize("path_length", [10, 100, 4000])
def test_the_text_always_fits(what_length: int, line_length: int, path_length: int) -> None:
    lines = tuple(f"{n}" + "x" * line_length for n in range(10))
    text = compose("w" * what_length, log_tail=lines, log_file="/" + "p" * path_length)
    assert len(text) <= MOST_CHARACTERS
    assert text.startswith("wwwwwwwwww")
    assert text.splitlines()[-1].startswith("Log: ")


def test_when_not_all_lines_fit_the_last_ones_stay() -> None:
    text = compose("It exited.", log_tail=tuple(f"{n}:" + "x" * 190 for n in range(10)), log_file="/i.log")
    assert "\n9:" in text
    assert "\n0:" not in text
