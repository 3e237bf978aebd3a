"""The listeners of the other gateway processes, each of which has its own.

The kernel shares new connections out among the listeners of a port, whether or not anybody accepts them there. So
what waits at the listener of a process that has died, or has no time, is taken by another one (see
docs/decisions/0007-a-listener-for-each-gateway.md).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

LOOK_SECONDS = 0.05
_AT_ONCE = 16
"""Between which everyone else gets a turn, however many wait."""

logger = logging.getLogger(__name__)
Admit = Callable[[socket.socket, str], None]
"""Takes an accepted connection in, given where it comes from."""


class Neighbours:
    """Looks after `listeners` as long as `look_after` runs. They are others' to close."""

    def __init__(self, listeners: Sequence[socket.socket], admit: Admit) -> None:
        self._listeners = listeners
        self._admit = admit

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
            self._admit(sock, address)


class PlainAdmission:
    """Makes connections without TLS of accepted sockets."""

    def __init__(self, connection: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, sock: socket.socket, address: str) -> None:
        task = self._loop.create_task(self._make(sock), name="take a connection over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connection, sock)
        except OSError:
            sock.close()
            logger.debug("a connection ended before it was taken over", exc_info=True)
