"""Where connections come in: accepted, and made the gateway's own, after a TLS handshake if there is to be one."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Protocol

from moorage.gateway.client_connection import ClientConnection
from moorage.gateway.tls import Certificate
from moorage.gateway.visitors import Visitors

_ACCEPT_AT_ONCE = 64
"""Between which everyone else gets a turn, however many knock."""

_WITHOUT_FILES_SECONDS = 0.5
_NO_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
logger = logging.getLogger(__name__)


class Admission(Protocol):
    """What becomes of accepted connections."""

    def admit(self, sock: socket.socket, address: str) -> None:
        """Take one in, given where it comes from."""

    async def close(self) -> None:
        """Return when those who have been taken in are connections, or never will be."""


class Door:
    """Accepts connections at a listening socket.

    The servers of uvloop accept one in each turn of the loop. Where a thousand busy clients make a turn take 40 ms,
    those that come to them would wait for seconds.
    """

    def __init__(
        self, listener: socket.socket, admission: Admission, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._listener = listener
        self._admission = admission
        self._loop = loop
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(4096)
        loop.add_reader(listener, self._accept)

    async def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await self._admission.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, (address, *_) = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_FILES:
                    logger.error("no connection can be accepted now: %s", error.strerror)
                    self._loop.remove_reader(self._listener)
                    self._pause = self._loop.call_later(
                        _WITHOUT_FILES_SECONDS, self._loop.add_reader, self._listener, self._accept
                    )
                    return
                continue  # that client has gone already
            self._admission.admit(sock, address)


class PlainAdmission:
    """Without TLS. `connection` counts itself among the visitors."""

    def __init__(self, connection: Callable[[], ClientConnection], loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def admit(self, sock: socket.socket, address: str) -> None:
        task = self._loop.create_task(self._make(sock), name="make a connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connection, sock)
        except OSError:
            sock.close()
            logger.debug("a connection ended before it was made", exc_info=True)


class TlsAdmission:
    """Counts connections, and only then begins with TLS, which the loop's own server would do first.

    One too many is cut off without a word, for its client would not understand one: to SDKs that is a
    connection that failed, which they try again.
    """

    def __init__(
        self,
        *,
        certificate: Certificate,
        visitors: Visitors,
        connection: Callable[[], ClientConnection],
        handshake_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._certificate = certificate
        self._visitors = visitors
        self._connection = connection
        self._handshake_seconds = handshake_seconds
        self._loop = loop
        self._handshakes: set[asyncio.Task[None]] = set()

    def admit(self, sock: socket.socket, address: str) -> None:
        if not self._visitors.enter(address):
            sock.close()
            return
        handshake = self._loop.create_task(self._shake_hands(sock, address), name="TLS handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def close(self) -> None:
        for handshake in self._handshakes:
            handshake.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    async def _shake_hands(self, sock: socket.socket, address: str) -> None:
        connection = self._connection()
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._handshake_seconds,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            logger.debug("a TLS handshake failed", exc_info=True)
        finally:
            if not connection.counted:  # it was never made, so it cannot be lost
                self._visitors.leave(address)
