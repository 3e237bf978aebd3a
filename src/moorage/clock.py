"""A clock for what must not notice that the system's clock is set: pauses, the order of a queue, patience.

What people read (when an invocation was accepted, when it expires) is the time of day. What is only compared with
itself is read from a `SteadyClock`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class SteadyClock:
    """UTC as it was when the clock was made, counted on by the monotonic clock: it never steps, neither forward nor
    back, and drifts from the time of day by what that is set meanwhile."""

    def __init__(
        self,
        *,
        time_of_day: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.time_of_day = time_of_day
        """What people read; it may be set, forward or back, at any moment."""
        self._monotonic = monotonic
        self._started = time_of_day()
        self._offset_seconds = monotonic()

    def __repr__(self) -> str:
        return f"<SteadyClock {self()}>"

    def __call__(self) -> datetime:
        return self._started + timedelta(seconds=self._monotonic() - self._offset_seconds)

    def not_before(self, instant: datetime) -> None:
        """Go on from `instant` if the clock is behind it: the time of day was set back since `instant` was stored
        by an earlier process."""
        behind = instant - self()
        if behind > timedelta():
            self._started += behind
