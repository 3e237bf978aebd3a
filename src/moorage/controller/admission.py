"""So many calls of the control plane at once; the next ones wait in order; what is more is refused at once.

Every call asks the database several times. With all that come at work together, each would wait behind all others at
each step, and under more load than there is room for none would be done before its caller has given up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage.errors import ThrottlingException

AT_ONCE = 8
MOST_WAITING = 128


class Admission:
    """Places for calls."""

    def __init__(self, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Admission {self._waiting} waiting>"

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for the length of the block, once one is free.

        Raises:
            ThrottlingException: too many are waiting already.
        """
        if self._waiting >= self._most_waiting:
            raise ThrottlingException(
                f"Rate exceeded: {self._waiting} calls of the control plane are waiting already. Please try again."
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
