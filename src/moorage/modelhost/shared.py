"""What a worker tells the front without a system call: memory that both have mapped.

The worker writes as it goes, the front reads when it needs to know: whether user code takes too long, and, when
the worker has died, how far it had come with each of its connections.
"""

import mmap
import os
from enum import IntEnum

SLOTS = 64 * 1024
_HEADER_BYTES = 16


class State(IntEnum):
    """How far the worker is with the request of a connection."""

    UNTOUCHED = 0
    CONSUMED = 1  # partly or wholly, and nothing of its reply is sent
    REPLYING = 2
    REPLYING_UNTIL_CLOSE = 3  # the end of the connection would be taken for the end of the reply


class Shared:
    """`busy_since[0]`: since when (time.monotonic) user code has been running; 0.0 while it is not.
    `served[0]`: how many invocations have come to an end. `states[slot]`: a State."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, _HEADER_BYTES + SLOTS)
        whole = memoryview(self._map)
        self.busy_since = whole[:8].cast("d")
        self.served = whole[8:_HEADER_BYTES].cast("Q")
        self.states = whole[_HEADER_BYTES:]

    @classmethod
    def create(cls) -> tuple["Shared", int]:
        """With a descriptor to pass on, which is the caller's to close."""
        descriptor = os.memfd_create("moorage-worker", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _HEADER_BYTES + SLOTS)
        return cls(descriptor), descriptor
