"""When what failed is tried again, and when it is told again: pure rules."""

from typing import Final

_FIRST_PAUSE_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_MOST_RETRIES_PER_SECOND: Final = 3.0
"""Of everything that waits together. An attempt whose object is missing takes some 5 ms of a processor, in all."""
_SPREAD: Final = 0.25


def pause_before_retry(failures: int, waiting: int, chance: float) -> float:
    """How long to wait, in seconds, after so many failures in a row (from 1 on).

    The pause doubles from 2 s to 60 s, and is longer only when so many wait (`waiting`, this one included) that they
    would come more often than three times a second in all. `chance`, from 0 to 1, spreads it by a quarter in both
    directions: what failed at one moment does not come back at one moment.
    """
    doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)
    pause = max(min(doubled, _LONGEST_PAUSE_SECONDS), waiting / _MOST_RETRIES_PER_SECOND)
    return pause * (1.0 - _SPREAD + 2.0 * _SPREAD * chance)


class Repetitions:
    """Which of the faults that come again and again are worth a line in the log: each once in `interval_seconds`."""

    def __init__(self, *, interval_seconds: float = 60.0) -> None:
        self._interval_seconds = interval_seconds
        self._told: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Repetitions of {len(self._told)} faults>"

    def is_new(self, fault: str, now: float) -> bool:
        """Whether to tell it now; `now` in seconds of a clock that does not go back."""
        self._told = {each: time for each, time in self._told.items() if now - time < self._interval_seconds}
        if fault in self._told:
            return False
        self._told[fault] = now
        return True
