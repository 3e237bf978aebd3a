"""Turns: whoever has much to do does a little of it, and goes on after everyone else has had a turn.

Nothing else in the event loop runs while one connection's bytes are parsed, hashed and copied; a fast sender of a
large body could keep it busy with megabytes at a time. So what takes long is done in pieces of a few tens of
microseconds up to a few hundred, one piece of all that is waiting for each round of the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """The queue of those who have more to do."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting>"

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once, in a later round of the loop, after those who wait already. Nobody is taken off the
        queue: `go_on` has to see for itself whether there is anything left to do."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        go_on = self._waiting[0]
        try:
            go_on()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._loop.call_soon(self._next)
