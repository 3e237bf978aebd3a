"""How a stream learns that its client has gone, even while it is blocked in user code.

User code runs in the main thread, because only there a signal interrupts a blocking call (time.sleep, a
lock, a socket) and may raise from its handler. The watching thread requests, the main thread obeys. A
stream is interrupted at most once, so its `finally` runs undisturbed. Plain functions are not interrupted:
an exception between two of their lines could leave the model half changed.
"""

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

# glibc and Python leave the real-time signals to the application; user code is unlikely to use this one.
CANCEL_SIGNAL = signal.SIGRTMIN + 3

# A signal may arrive between Python's check for signals and the blocking system call, and would then wait
# for that call to end; so it is sent again until it has been seen.
RESEND_SECONDS = 0.02

_lock = threading.Lock()  # one for all: only an invocation that awaits something ever takes it


class ClientGone(GeneratorExit):
    """Raised in a blocked generator: what a `close()` raises at a yield, so the same handlers apply."""


class Cancellation:
    """Of one invocation."""

    __slots__ = ("_interruptible", "_raised", "_task", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._task: asyncio.Task[Any] | None = None
        self._interruptible = False
        self._raised = False

    def request(self) -> None:
        """From the watching thread: ends an async function or stream; `nudge` is for a sync stream."""
        with _lock:
            if not self.requested:
                self.requested = True
                if self._task is not None:
                    self._task.get_loop().call_soon_threadsafe(self.cancel, self._task)

    def obey(self) -> None:
        """The main thread has noticed by itself, and ends the invocation."""
        self.requested = self._raised = True

    def nudge(self) -> None:
        """From the watching thread, after `request`, again and again while `is_deaf`."""
        main = threading.main_thread().ident
        assert main is not None, "the main thread runs"
        signal.pthread_kill(main, CANCEL_SIGNAL)

    @property
    def is_deaf(self) -> bool:
        """A stream that has been told to stop, but not yet been interrupted."""
        return self.requested and self._interruptible and not self._raised

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.is_deaf:
            self._raised = True
            raise ClientGone

    def next_part(self, parts: Iterator[Any]) -> Any:
        """`next(parts)`, which may also raise ClientGone."""
        self._interruptible = True
        try:
            if self.requested:
                self._raised = True
                raise ClientGone
            return next(parts)
        finally:
            self._interruptible = False

    def attach(self, task: "asyncio.Task[Any]") -> None:
        """The task that runs user code now, on the main thread's loop."""
        with _lock:
            self._task = task
            if self.requested:
                self.cancel(task)

    def detach(self) -> None:
        with _lock:
            self._task = None

    def cancel(self, task: "asyncio.Task[Any]") -> None:
        """On the main thread: ends the task, unless it has been told to end before."""
        if not self._raised:
            self.requested = self._raised = True
            task.cancel()
