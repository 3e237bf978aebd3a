"""Whose work runs next when accounts share few processes: pure bookkeeping.

* An account that has nothing running gets a slot at once, unless `most` are taken: nobody's small piece of work waits
  behind the large ones of another account. The kernel shares the processors out between the processes.
* Beyond its first, an account gets more slots only while fewer than `parallel` are taken in all.
* Among those that wait, the account with the fewest running is next, then the one that was served longest ago; pieces
  of work of one account keep their order.
"""

import itertools
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairSlots(Generic[T]):
    """Pieces of work that wait or run, by account. A piece is anything that is equal to itself only."""

    def __init__(self, *, parallel: int, most: int) -> None:
        if not 1 <= parallel <= most:
            raise ValueError(f"parallel={parallel} must be from 1 to most={most}")
        self._parallel = parallel
        self._most = most
        self._waiting: dict[str, deque[T]] = {}
        self._running: dict[str, int] = {}
        self._served: dict[str, int] = {}
        """When each account that waits or runs was served last: a number that grows."""
        self._clock = itertools.count(1)

    def __repr__(self) -> str:
        return f"<FairSlots {self.running} running, {sum(map(len, self._waiting.values()))} waiting>"

    @property
    def running(self) -> int:
        return sum(self._running.values())

    def add(self, account_id: str, work: T) -> None:
        """A piece of work waits from now on; `start` tells when it may run."""
        self._waiting.setdefault(account_id, deque()).append(work)

    def start(self) -> list[T]:
        """The pieces of work that may run from now on, in the order of their turns."""
        started: list[T] = []
        while (account_id := self._next()) is not None:
            waiting = self._waiting[account_id]
            started.append(waiting.popleft())
            if not waiting:
                del self._waiting[account_id]
            self._running[account_id] = self._running.get(account_id, 0) + 1
            self._served[account_id] = next(self._clock)
        return started

    def finish(self, account_id: str) -> None:
        """A piece of work that ran has ended."""
        self._running[account_id] -= 1
        if not self._running[account_id]:
            del self._running[account_id]
            if account_id not in self._waiting:
                del self._served[account_id]

    def give_up(self, account_id: str, work: T) -> None:
        """A piece of work that waited is not wanted any more."""
        waiting = self._waiting[account_id]
        waiting.remove(work)
        if not waiting:
            del self._waiting[account_id]
            if account_id not in self._running:
                self._served.pop(account_id, None)

    def _next(self) -> str | None:
        running = self.running
        if running >= self._most or not self._waiting:
            return None
        account_id = min(
            self._waiting, key=lambda each: (self._running.get(each, 0), self._served.get(each, 0))
        )
        if running >= self._parallel and account_id in self._running:
            return None
        return account_id
