"""The listeners of the other gateway processes, each of which has its own.

The kernel shares new connections out among the listeners of a port, whether or not anybody accepts them there. So
what waits at the listener of a process that has died, or has no time, is taken by another one (see
docs/decisions/0007-a-listener-for-each-gateway.md).
"""

import asyncio
import logging
import socket
from collections.abc import Sequence

from moorage.gateway.doors import Admission

LOOK_SECONDS = 0.05
_AT_ONCE = 16
"""Between which everyone else gets a turn, however many wait."""

logger = logging.getLogger(__name__)


class Neighbours:
    """Looks after `listeners` as long as `look_after` runs. They are others' to close."""

    def __init__(self, listeners: Sequence[socket.socket], admission: Admission) -> None:
        self._listeners = listeners
        self._admission = admission

    async def look_after(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for listener in self._listeners:
                self._take_from(listener)

    def _take_from(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, (address, *_) = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # it has gone already, or there is no file descriptor for it
                logger.debug("a connection of another gateway was not taken: %s", error)
                return
            self._admission.admit(sock, address)
