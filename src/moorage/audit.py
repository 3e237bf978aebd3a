"""The audit log: one JSON line for each call of the control plane, and for each call that was refused.

Several processes append to one file. A line is one `write` to a descriptor opened to append, and shorter than 4 KiB,
so that lines of different processes do not mix. Before each line the file's name is looked at again: a file that was
moved away gets no more lines, a new one is made.

What could not be written is told twice: once in the server's log when it begins, and by a line in the audit log, with
the number of lines that are missing, when it can be written again.
"""

import errno
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["allowed", "refused", "failed"]

LONGEST_LINE = 4096
"""In bytes; every line is shorter."""

_LIMITS = (1024, 256, 64, 16)
"""The longest text of a field: the first of these with which the line is short enough."""

_MOST_RESOURCES = 10
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""Not to wait: a pipe that nobody reads must not stop the server."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One call. What is empty is not known, and is left out of the line.

    Whoever makes one answers for what is in it: no secret, no signature, no token and nothing of a body.
    """

    event_source: str
    event_name: str
    outcome: Outcome
    request_id: str
    aws_region: str = ""
    source_ip_address: str = ""
    user_agent: str = ""
    account_id: str = ""
    principal_arn: str = ""
    access_key_id: str = ""
    resources: Sequence[str] = ()
    error_code: str = ""
    error_message: str = ""

    def document(self) -> dict[str, Any]:
        resources: str | list[str] = list(self.resources[:_MOST_RESOURCES])
        if len(self.resources) > _MOST_RESOURCES:
            resources = [*resources, f"and {len(self.resources) - _MOST_RESOURCES} more"]
        elif len(resources) == 1:
            resources = resources[0]
        return {
            "eventSource": self.event_source,
            "eventName": self.event_name,
            "awsRegion": self.aws_region,
            "sourceIPAddress": self.source_ip_address,
            "userAgent": self.user_agent,
            "accountId": self.account_id,
            "principalArn": self.principal_arn,
            "accessKeyId": self.access_key_id,
            "requestId": self.request_id,
            "resource": resources,
            "outcome": self.outcome,
            "errorCode": self.error_code,
            "errorMessage": self.error_message.partition("\n")[0],
        }


class AuditLog:
    """The file at `path`; without one, there is no audit log and nothing is written."""

    def __init__(
        self, path: Path | None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._torn = False  # our last line is in the file in part
        self._missing = 0

    def __repr__(self) -> str:
        return f"<AuditLog {self._path}, {self._missing} lines missing>"

    def open(self) -> None:
        """Make the file, mode 0600, if there is none. Raises `OSError` when it cannot be written."""
        if self._path is not None:
            self._current(self._path)

    def write(self, event: Event) -> None:
        """Append a line. Failing is told in the server's log, and stops nothing."""
        self._append(event.document())

    def note_left_out(self, name: str, count: int, text: str) -> None:
        """Append a line about lines that are not there."""
        self._append(_left_out(name, count, text))

    def close(self) -> None:
        if self._missing:
            logger.error("%d lines are missing from the audit log %s", self._missing, self._path)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, document: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        now = self._clock()
        lines = _line(document, now)
        if self._missing:
            text = f"{self._missing} lines could not be written."
            lines = _line(_left_out("LinesNotWritten", self._missing, text), now) + lines
        try:
            self._write(self._current(self._path), lines)
        except OSError as error:
            if not self._missing:
                reason = error.strerror or error
                logger.error("the audit log %s misses lines from now on: %s", self._path, reason)
            self._missing += 1
            return
        if self._missing:
            logger.warning(
                "the audit log %s is written again; %d lines are missing", self._path, self._missing
            )
            self._missing = 0

    def _write(self, descriptor: int, lines: bytes) -> None:
        if self._torn:
            lines = b"\n" + lines
        written = os.write(descriptor, lines)
        self._torn = written < len(lines)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _current(self, path: Path) -> int:
        """A descriptor of the file that has the name now."""
        if self._descriptor is not None:
            with suppress(FileNotFoundError):
                if _identity(path.stat()) == self._identity:
                    return self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
            self._torn = False
        self._descriptor = os.open(path, _FLAGS, 0o600)
        self._identity = _identity(os.fstat(self._descriptor))
        return self._descriptor


class BoundedAuditLog:
    """An audit log in which whoever is refused can make few lines a second, and what is left out is counted.

    Each `kind` of event has a bound of its own, so that a flood of one does not hide the other.
    """

    def __init__(
        self, log: AuditLog, *, most_per_second: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._most = most_per_second
        self._clock = clock
        self._second_ends = 0.0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def write(self, kind: str, make_event: Callable[[], Event]) -> None:
        """Append a line, unless there were too many in this second; then nothing is made."""
        self.tell_left_out()
        if self._written[kind] < self._most:
            self._written[kind] += 1
            self._log.write(make_event())
        else:
            self._left_out[kind] += 1

    def tell_left_out(self) -> None:
        """Once a second is over, say how many lines it lacks. To be called about once a second."""
        now = self._clock()
        if now >= self._second_ends:
            self._second_ends = now + 1.0
            self._written.clear()
            self._tell()

    def close(self) -> None:
        self._tell()
        self._log.close()

    def _tell(self) -> None:
        for kind, count in self._left_out.items():
            text = f"{count} more {kind} within a second: {self._most} of them are logged."
            self._log.note_left_out("LinesLeftOut", count, text)
        self._left_out.clear()


def _left_out(name: str, count: int, text: str) -> dict[str, Any]:
    return {"eventSource": "moorage", "eventName": name, "count": count, "errorMessage": text}


def _line(document: Mapping[str, Any], time: datetime) -> bytes:
    """Only ASCII, so that a control character or half a character can do no harm to whoever reads it."""
    stamp = time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    line = b""
    for longest in _LIMITS:
        fields = {name: _cut(value, longest) for name, value in document.items() if value}
        line = json.dumps({"eventTime": stamp, **fields}, separators=(",", ":")).encode() + b"\n"
        if len(line) < LONGEST_LINE:
            break
    return line


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, list):
        return [_cut(each, longest) for each in value]
    if isinstance(value, str) and len(value) > longest:
        return value[: longest - 1] + "…"
    return value


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
