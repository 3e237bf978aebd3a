"""How long to wait for more invocations before those that are there are run as one batch.

While a batch runs, others gather by themselves. Waiting is of use where those who were just answered come again at
once: then as many are expected as were in the last two batches. It never takes longer than the delay that is set, nor
longer, after the end of the last batch, than half of what that took. Where it was in vain, it is not tried again for
some batches.
"""

from collections.abc import Hashable, Set
from typing import Final

_SHARE_OF_A_RUN: Final = 0.5
_LONGEST_PAUSE: Final = 64  # batches


class Gathering:
    """Decides by what it is told, without a clock. Times are seconds of any one clock."""

    def __init__(self, *, most: int, delay_seconds: float) -> None:
        """`most` invocations are a batch; none waits longer than the delay for others."""
        self.most = most
        self._delay = delay_seconds
        self._last: Set[Hashable] = frozenset()
        self._before: Set[Hashable] = frozenset()
        self._run_seconds = self._ended = 0.0
        self._pause = 0  # batches that are run without waiting for more
        self._next_pause = 1
        self._waited_with = 0  # invocations that were there when it began to wait

    def wait(self, waiting: int, *, since: float, now: float) -> float:
        """Seconds to wait for more, 0 to run what is there: so many invocations, the first of them since then."""
        if waiting >= min(self.most, len(self._last | self._before)) or self._pause:
            return 0.0
        patience = self._run_seconds * _SHARE_OF_A_RUN
        left = min(since + self._delay, max(since, self._ended) + patience) - now
        if left <= 0:
            return 0.0
        self._waited_with = self._waited_with or waiting
        return left

    def ran(self, callers: Set[Hashable], *, began: float, ended: float) -> None:
        """A batch of these callers has run, and is answered."""
        if self._pause:
            self._pause -= 1
        elif self._waited_with >= len(callers):
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
        elif self._waited_with:
            self._next_pause = 1
        self._waited_with = 0
        self._before, self._last = self._last, callers
        self._run_seconds, self._ended = ended - began, ended
