"""Reads what containers print and writes their logs, in a thread of its own.

A disk that is slow then delays logs and nothing else. A container that prints faster than its budget is read more
slowly than it prints, so that it waits for us and not the others, and what is beyond the budget is left out and
counted.
"""

import asyncio
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from moorage.launchers.log_file import LogFile, OutputBudget

_PIECE: Final = 64 * 1024
_MAX_PIPE_BYTES: Final = 1024 * 1024
"""The most that a container can make its pipe hold (`/proc/sys/fs/pipe-max-size`)."""
_PAUSE_SECONDS: Final = 0.02
"""Between two looks at a container that is beyond its budget."""
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class LogCollector:
    """The logs of all instances of a launcher. `log` opens one; `close` ends the thread."""

    def __init__(
        self, *, limit_bytes: int, rate: float = 1024 * 1024, burst: float = 8 * 1024 * 1024
    ) -> None:
        self.limit_bytes = limit_bytes
        self.rate = rate
        self.burst = burst
        self.selector = selectors.DefaultSelector()
        self.paused: dict[_Pipe, float] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<LogCollector pipes={max(0, len(self.selector.get_map() or ()) - 1)}>"

    def log(self, path: str) -> "InstanceLog":
        if self._thread is None:
            self.selector.register(self._wake, selectors.EVENT_READ, None)
            self._thread = threading.Thread(target=self._run, name="log-collector", daemon=True)
            self._thread.start()
        return InstanceLog(self, path)

    def submit(self, command: Callable[[], None]) -> None:
        """Run something in the thread, after what was submitted before."""
        self._commands.append(command)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Carry out what was submitted, then end. Once is enough, and again is allowed."""
        if self._closed:
            return
        if self._thread is None:
            self._closed = True
        else:
            self.submit(self._end)
            self._thread.join()
        self.selector.close()
        os.close(self._wake)

    def _end(self) -> None:
        self._closed = True

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self.selector.select(self._timeout()):
                if key.data is None:
                    os.eventfd_read(self._wake)
                else:
                    self._guard(key.data.read_some)
            while self._commands:
                self._guard(self._commands.popleft())
            self._look_at_paused(time.monotonic())

    def _guard(self, step: Callable[[], None]) -> None:
        """A fault of ours in one log is not the end of all."""
        try:
            step()
        except Exception:
            _log.exception("a log could not be written")

    def _timeout(self) -> float | None:
        if not self.paused:
            return None
        return max(0.0, min(self.paused.values()) - time.monotonic())

    def _look_at_paused(self, now: float) -> None:
        for pipe in [pipe for pipe, until in self.paused.items() if until <= now]:
            self._guard(pipe.poll)


class InstanceLog:
    """One instance's log, as its supervisor uses it. No method waits for a disk but those that are awaited."""

    def __init__(self, collector: LogCollector, path: str) -> None:
        self.path = path
        self._collector = collector
        self._file = LogFile(path, limit_bytes=collector.limit_bytes)
        self._pipes: set[_Pipe] = set()

    def __repr__(self) -> str:
        return f"<InstanceLog {self.path}>"

    def open(self) -> None:
        """See that the file can be written.

        Raises:
            OSError: it cannot be.
        """
        self._file.open()

    def note(self, text: str) -> None:
        """A line of our own, after everything that was printed before."""
        self._collector.submit(lambda: self._note(text))

    def pipe(self, owner: tuple[int, int] | None = None) -> int:
        """The writing end of a new pipe into this log, for a container's output; the caller closes it.

        `owner` (user and group) may open it anew by name, as `/dev/stderr`.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(reading, False)
            if owner is not None:
                os.fchown(writing, *owner)
        except BaseException:
            os.close(reading)
            os.close(writing)
            raise
        self._collector.submit(lambda: self._begin(reading))
        return writing

    async def tail(self) -> tuple[str, ...]:
        """The last lines of the container's current start, all that it has printed until now taken in."""
        loop = asyncio.get_running_loop()
        lines: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def answer() -> None:
            self._take_in_all()
            tail = self._file.tail()
            loop.call_soon_threadsafe(_set, lines, tail)

        self._collector.submit(answer)
        return await lines

    async def close(self) -> None:
        """After the last process of the instance is gone: take in what is left, and close the file."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            self._take_in_all()
            for pipe in list(self._pipes):
                pipe.close()
            self._file.close()
            loop.call_soon_threadsafe(_set, closed, None)

        self._collector.submit(end)
        await closed

    # --- in the collector's thread --------------------------------------------------------------------

    def _begin(self, reading: int) -> None:
        self._file.forget_tail()
        collector = self._collector
        budget = OutputBudget(rate=collector.rate, burst=collector.burst, now=time.monotonic())
        self._pipes.add(_Pipe(reading, self._file, budget, collector, self._pipes.discard))

    def _note(self, text: str) -> None:
        self._take_in_all()
        self._file.note(text)

    def _take_in_all(self) -> None:
        for pipe in list(self._pipes):
            pipe.read_all()


class _Pipe:
    """The reading end of one start of a container."""

    def __init__(
        self,
        descriptor: int,
        file: LogFile,
        budget: OutputBudget,
        collector: LogCollector,
        on_close: "Callable[[_Pipe], None]",
    ) -> None:
        self.descriptor = descriptor
        self._file = file
        self._budget = budget
        self._collector = collector
        self._on_close = on_close
        self._left_out_bytes = 0
        self._left_out_lines = 0
        self._is_open = True
        collector.selector.register(descriptor, selectors.EVENT_READ, self)

    def read_some(self) -> None:
        """One piece; a container that is beyond its budget is looked at again later."""
        if self._read() and self._left_out_bytes and self._is_open:
            self._collector.selector.unregister(self.descriptor)
            self._collector.paused[self] = time.monotonic() + _PAUSE_SECONDS

    def poll(self) -> None:
        """Look at a container that was beyond its budget; once it is not, the file says what was left out."""
        now = time.monotonic()
        self._collector.paused[self] = now + _PAUSE_SECONDS
        self.read_all()
        self._budget.take(0, now)
        if self._is_open and not self._budget.used_up:
            self._tell_left_out()
            del self._collector.paused[self]
            self._collector.selector.register(self.descriptor, selectors.EVENT_READ, self)

    def read_all(self) -> None:
        """What is in the pipe now."""
        for _ in range(_MAX_PIPE_BYTES // _PIECE):
            if not self._read():
                return

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._tell_left_out()
            if self._collector.paused.pop(self, None) is None:
                self._collector.selector.unregister(self.descriptor)
            os.close(self.descriptor)
            self._on_close(self)

    def _read(self) -> bool:
        """Whether there was anything."""
        if not self._is_open:
            return False
        try:
            data = os.read(self.descriptor, _PIECE)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        kept = self._budget.take(len(data), time.monotonic())
        if kept:
            self._tell_left_out()
            self._file.write(data[:kept])
        if kept < len(data):
            self._left_out_bytes += len(data) - kept
            self._left_out_lines += data.count(b"\n", kept)
        return True

    def _tell_left_out(self) -> None:
        if self._left_out_bytes:
            self._file.note(
                f"{self._left_out_lines} lines of output ({self._left_out_bytes} bytes) are left out here: "
                f"it was more than {self._budget.rate:.0f} bytes a second"
            )
            self._left_out_bytes = self._left_out_lines = 0


def _set(future: "asyncio.Future[_T]", value: _T) -> None:
    if not future.done():
        future.set_result(value)
