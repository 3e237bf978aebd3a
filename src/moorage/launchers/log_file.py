"""The log of an instance: what its processes print, and Moorage's own lines between.

The file is the server's alone. A container has the writing end of a pipe, so it cannot cut the file, read it, or
write lines that look like the server's: a line of the server begins with `OWN_PREFIX`, and one of a container that
begins so is given a blank in front. The newest `limit_bytes` are kept, in the file and in `<file>.1`.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from moorage.control_characters import plain

OWN_PREFIX: Final = "[moorage]"
_PREFIX: Final = OWN_PREFIX.encode()
_TAIL_BYTES: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class OutputBudget:
    """How much output of a container is kept: `rate` bytes a second over time, at most `burst` at once.

    Who has used it up gets nothing more until a quarter of `burst` has come together, so that what is kept are pieces
    that can be read.
    """

    rate: float
    burst: float
    now: float
    left: float = -1.0
    used_up: bool = False

    def __post_init__(self) -> None:
        if self.left < 0:
            self.left = self.burst

    def take(self, size: int, now: float) -> int:
        """How many of `size` bytes are kept at the time `now` (seconds of any clock that does not go back)."""
        self.left = min(self.burst, self.left + (now - self.now) * self.rate)
        self.now = now
        if self.used_up and self.left < self.burst / 4:
            return 0
        kept = min(size, int(self.left))
        self.left -= kept
        self.used_up = kept < size
        return kept


class LogFile:
    """The file. Every method is called in one thread, and none raises for a file that cannot be written."""

    def __init__(self, path: str, *, limit_bytes: int) -> None:
        self.path = Path(path)
        self._limit_bytes = limit_bytes
        self._descriptor = -1
        self._size = 0
        self._tail = b""
        self._is_line_start = True
        self._held = b""
        """The start of a line that may become `OWN_PREFIX`."""
        self._lost_bytes = 0
        self._obstacle = ""

    def open(self) -> None:
        """Make the file, or go on with the one that is there.

        Raises:
            OSError: it cannot be.
        """
        if self._descriptor < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._descriptor >= 0:
            self._end_line()
            os.close(self._descriptor)
            self._descriptor = -1

    def forget_tail(self) -> None:
        """Another start of the container: what an earlier one printed says nothing of this one."""
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Append what a container printed."""
        data = self._held + data
        self._held = b""
        if self._is_line_start and data.startswith(_PREFIX):
            data = b" " + data
        data = data.replace(b"\n" + _PREFIX, b"\n " + _PREFIX)
        last = data.rpartition(b"\n")[2]
        begins_line = self._is_line_start or len(last) < len(data)
        if begins_line and 0 < len(last) < len(_PREFIX) and _PREFIX.startswith(last):
            data, self._held = data[: -len(last)], last
        if data:
            self._is_line_start = data.endswith(b"\n")
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            piece = max(1, self._limit_bytes // 2)
            for start in range(0, len(data), piece):
                self._append(data[start : start + piece])

    def note(self, text: str) -> None:
        """Append a line of our own; the file is made if need be."""
        with suppress(OSError):
            self.open()
        self._end_line()
        self._append(_own_line(text))

    def tail(self, *, lines: int = 10, width: int = 200) -> tuple[str, ...]:
        """The container's last lines since `forget_tail`: not empty, without control characters, cut to `width`."""
        text = (self._tail + self._held).decode("utf-8", "replace")
        clean = (plain(line, keep="\t").rstrip() for line in re.split(r"\r\n|[\n\r]", text))
        kept = [line for line in clean if line][-lines:]
        return tuple(line if len(line) <= width else line[: width - 1] + "…" for line in kept)

    def _end_line(self) -> None:
        if self._held:
            self._tail += self._held
            self._append(self._held)
            self._held = b""
            self._is_line_start = False
        if not self._is_line_start:
            self._append(b"\n")
            self._is_line_start = True

    def _append(self, data: bytes) -> None:
        if self._descriptor < 0:
            return
        if self._lost_bytes and self._try_to_append(
            _own_line(f"{self._lost_bytes} bytes could not be written here: {self._obstacle}")
        ):
            self._lost_bytes = 0
        if self._lost_bytes or not self._try_to_append(data):
            self._lost_bytes += len(data)

    def _try_to_append(self, data: bytes) -> bool:
        try:
            if self._size + len(data) > self._limit_bytes // 2 and self._size:
                self._begin_new_file()
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._obstacle = error.strerror or str(error)
            return False
        self._size += written
        if written < len(data):  # a disk that is full just now
            self._obstacle = "No space left on device"
            self._lost_bytes += len(data) - written
        return True

    def _begin_new_file(self) -> None:
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        os.close(self._descriptor)
        self._descriptor = -1
        self.open()


def _own_line(text: str) -> bytes:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    one_line = text.replace("\n", "\\n")
    return f"{OWN_PREFIX} {stamp} {one_line}\n".encode("utf-8", "replace")
