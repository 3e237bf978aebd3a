"""Forgetting finished invocations, a few at a time: SQLite has one writer, for which all that is accepted waits."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

from moorage.async_inference.base import Queue

_AIM_SECONDS = 0.01
_LEAST, _MOST = 20, 1000
_LONGEST_PAUSE_SECONDS = 1.0
_LOOKED_UP = 10_000
"""How many are looked up at once. That takes no lock."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many invocations the next transaction forgets at most, after a pause in seconds."""

    most: int = 100
    pause_seconds: float = 0.0


def next_pace(pace: Pace, seconds: float) -> Pace:
    """After a transaction of `pace.most` invocations that took so many seconds.

    Transactions are to take 10 ms: the number follows the time, by no more than a half down or twice up at once. The
    pause is three times what was taken, so that three quarters of the time are left to others, and at most a second.
    """
    factor = min(2.0, max(0.5, _AIM_SECONDS / seconds)) if seconds > 0 else 2.0
    return Pace(
        most=min(_MOST, max(_LEAST, round(pace.most * factor))),
        pause_seconds=min(3 * seconds, _LONGEST_PAUSE_SECONDS),
    )


async def purge(
    queue: Queue,
    *,
    finished_before: datetime,
    account_id: str | None = None,
    endpoint_name: str | None = None,
    within_seconds: float | None = None,
) -> tuple[int, bool]:
    """Forget what was finished before then, of all accounts and endpoints unless one is given. Ends early when
    `within_seconds` are over. How many there were, and whether that was all."""
    end = None if within_seconds is None else time.monotonic() + within_seconds
    forgotten, pace = 0, Pace()
    while True:
        numbers = await queue.finished(
            before=finished_before, account_id=account_id, endpoint_name=endpoint_name, most=_LOOKED_UP
        )
        done = 0
        while done < len(numbers):
            batch = numbers[done : done + pace.most]
            done += len(batch)
            result = await queue.forget(batch, finished_before=finished_before)
            forgotten += result.number
            pace = next_pace(pace, result.seconds)
            if end is not None and time.monotonic() + pace.pause_seconds >= end:
                return forgotten, False
            await asyncio.sleep(pace.pause_seconds)
        if len(numbers) < _LOOKED_UP:
            return forgotten, True
