"""Free memory goes back to the kernel after it has held many request bodies.

The C library keeps what is freed, for the next one who asks. A gateway that has once held a hundred large bodies
would stay as large as it was then.
"""

import ctypes
from collections.abc import Callable

_WORTH_GIVING_BACK = 16 * 1024 * 1024
_QUIET_LOOKS = 3


class Heap:
    """Decides by the peaks of what was held between two looks."""

    def __init__(self, trim: Callable[[], None] | None = None) -> None:
        """`trim` gives back what is free; by default by the C library, which may have no such function."""
        self._trim = trim or give_back
        self._highest = 0  # since the last time that memory was given back
        self._quiet = 0  # for how many looks much less has been held

    def give_back_after(self, peak: int) -> None:
        """`peak` bytes were held at most since the last look. Memory is given back once, when for some looks there
        was much less to hold than before: so it is not taken and given back in turn."""
        if peak > self._highest - _WORTH_GIVING_BACK:
            self._highest = max(self._highest, peak)
            self._quiet = 0
            return
        self._quiet += 1
        if self._quiet >= _QUIET_LOOKS:
            self._highest = peak
            self._quiet = 0
            self._trim()


def give_back() -> None:
    """Give back what is free, to the kernel: starting a program frees much, which it will not need again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
