"""Log lines of the server's own processes: one format, on stderr, and no more of one kind than people can read.

What others wrote may stand in a record: a container's last lines, an object's key, the reason of an endpoint. Control
characters are spelt out, and every further line of a record begins with `CONTINUATION`, so that a line that begins
with a time and the name of a process is one of ours.
"""

import copy
import logging
import sys
import threading
import time
from collections.abc import Hashable
from types import TracebackType
from typing import TextIO

from moorage import control_characters

CONTINUATION = "  | "
MOST_OF_A_KIND = 20
KIND_SECONDS = 10.0
"""How many records from one place in the program are written within how long."""

_LONGEST = 32 * 1024
_LONGEST_EXAMPLE = 200


class RepetitionLimit:
    """Lets `most` of a kind through within `seconds`, counted from the first of them, and counts the others.

    There are as many kinds as callers know; nothing is kept of one whose time is over.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self.seconds = seconds
        self._most = most
        self._windows: dict[Hashable, tuple[float, int]] = {}

    def admit(self, kind: Hashable, now: float) -> bool:
        """Whether one more of a kind may pass. Times are seconds of any clock that only goes forward. Windows end by
        `take_ended` only, so that none ends untold."""
        until, count = self._windows.get(kind, (now + self.seconds, 0))
        self._windows[kind] = until, count + 1
        return count < self._most

    def take_ended(self, now: float) -> dict[Hashable, int]:
        """Ends the windows whose time is over. How many were not let through, by kind, where there were any."""
        ended = [(kind, count) for kind, (until, count) in self._windows.items() if until <= now]
        for kind, _ in ended:
            del self._windows[kind]
        return {kind: count - self._most for kind, count in ended if count > self._most}


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes records to a stream. Of those beyond the limit only their number is told, and the last of them."""

    def __init__(self, stream: TextIO, limit: RepetitionLimit) -> None:
        super().__init__(stream)
        self._limit = limit
        self._left_out: dict[Hashable, logging.LogRecord] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        self._tell_ended(now)
        kind = (record.pathname, record.lineno)
        if self._limit.admit(kind, now):
            super().emit(record)
            return
        self._left_out[kind] = record
        self._wake_later()

    def close(self) -> None:
        with self._locked():
            self._tell_ended(float("inf"))
            if self._timer is not None:
                self._timer.cancel()
        super().close()

    def _time_is_over(self) -> None:
        with self._locked():
            self._timer = None
            self._tell_ended(time.monotonic())
            self._wake_later()

    def _wake_later(self) -> None:
        """Perhaps no other record follows a burst for long, and then nothing else would tell how many it had."""
        if self._left_out and self._timer is None:
            self._timer = threading.Timer(self._limit.seconds, self._time_is_over)
            self._timer.daemon = True
            self._timer.start()

    def _locked(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock

    def _tell_ended(self, now: float) -> None:
        for kind, count in self._limit.take_ended(now).items():
            record = copy.copy(self._left_out.pop(kind))
            example = record.getMessage().partition("\n")[0][:_LONGEST_EXAMPLE]
            record.msg = (
                f"… and {count} more like it in the last {self._limit.seconds:g} s, the last: {example}"
            )
            record.args = record.exc_info = record.exc_text = record.stack_info = None
            super().emit(record)


class LineFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) > _LONGEST:
            text = text[: _LONGEST - 1] + "…"
        return control_characters.escape(text).replace("\n", f"\n{CONTINUATION}")


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """In place of the interpreter, which would print what an error says as it is."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger(__name__).critical(
            "the process ends by an error", exc_info=(kind, error, traceback)
        )


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    logging.getLogger(__name__).error("a thread ended by an error", exc_info=error)


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Set up logging for one process of the server; `process` names it in every line."""
    handler = LimitedHandler(sys.stderr, RepetitionLimit(most=MOST_OF_A_KIND, seconds=KIND_SECONDS))
    handler.setFormatter(LineFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
