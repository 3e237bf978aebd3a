"""The log of an instance: what its processes write, and Moorage's own lines between."""

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

OWN_PREFIX = "[moorage]"
_TAIL_BYTES = 64 * 1024
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class LogFile:
    """One log, only ever appended to. Its lines from `mark()` on are those of the current start."""

    def __init__(self, path: str, *, limit_bytes: int) -> None:
        self.path = Path(path)
        self._limit_bytes = limit_bytes
        self._start = 0

    def open(self) -> int:
        """A descriptor for a child's output. The caller closes it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def mark(self) -> None:
        try:
            self._start = self.path.stat().st_size
        except OSError:
            self._start = 0

    def note(self, text: str) -> None:
        """Append a line of our own. A full disk must not stop the supervision, so failing is silent."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            descriptor = self.open()
            try:
                os.write(descriptor, f"{OWN_PREFIX} {stamp} {text}\n".encode("utf-8", "replace"))
            finally:
                os.close(descriptor)
        except OSError:
            return

    def tail(self, *, lines: int = 10, width: int = 200) -> tuple[str, ...]:
        """The container's last lines since `mark()`: not empty, not ours, each cut to `width`."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                begin = max(min(self._start, size), size - _TAIL_BYTES)
                file.seek(begin)
                text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return ()
        clean = (_TERMINAL_CODES.sub("", line).rstrip() for line in text.splitlines())
        kept = [line for line in clean if line and not line.startswith(OWN_PREFIX)]
        return tuple(line if len(line) <= width else line[: width - 1] + "…" for line in kept[-lines:])

    def is_too_long(self) -> bool:
        try:
            return self.path.stat().st_size > self._limit_bytes
        except OSError:
            return False

    def rotate(self) -> None:
        """Move what there is to `<log>.1` by copying: the container keeps its descriptor, at the new end.

        A line written between the copy and the truncation is lost. Slow for a long log; runs in a thread.
        """
        try:
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)
        except OSError as error:
            self.note(f"cannot shorten this log: {error}")
            return
        self._start = 0
        self.note(
            f"this log had grown past {self._limit_bytes} bytes; what was here is in {self.path.name}.1"
        )
