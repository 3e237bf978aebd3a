"""How many connections each client may have, and a way to count them before TLS has cost anything."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from moorage.gateway.client_connection import ClientConnection
from moorage.gateway.tls import Certificate

_ACCEPT_AT_ONCE = 16
"""Between which everyone else gets a turn, however many knock."""

_WITHOUT_FILES_SECONDS = 0.5
_NO_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
logger = logging.getLogger(__name__)


class Visitors:
    """The connections of this process by the IP address that they come from. `most` of 0 is no limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[str, int] = {}
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<Visitors {sum(self._counts.values())} connections of {len(self._counts)} clients>"

    def enter(self, address: str) -> bool:
        """Count one more, which must `leave` again; False if this client has all that it may."""
        if not self._most:
            return True
        count = self._counts.get(address, 0)
        if count >= self._most:
            if address not in self._told:
                self._told.add(address)
                logger.warning(
                    "connections from %s are refused while it has %d, as max_connections_per_client allows",
                    address,
                    count,
                )
            return False
        self._counts[address] = count + 1
        return True

    def leave(self, address: str) -> None:
        count = self._counts.get(address, 0)
        if count > 1:
            self._counts[address] = count - 1
        elif count:
            del self._counts[address]
            self._told.discard(address)


class TlsDoor:
    """Accepts connections, counts them, and only then begins with TLS, which the loop's own server would do first.

    A client that has too many is cut off without a word, for it would not understand one: to SDKs that is a
    connection that failed, which they try again.
    """

    def __init__(
        self,
        *,
        listener: socket.socket,
        certificate: Certificate,
        visitors: Visitors,
        connection: Callable[[], ClientConnection],
        handshake_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = listener
        self._certificate = certificate
        self._visitors = visitors
        self._connection = connection
        self._handshake_seconds = handshake_seconds
        self._loop = loop
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(4096)
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more, and let nobody in who has not come through."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for handshake in self._handshakes:
            handshake.cancel()

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
            self.admit(sock, address)

    def admit(self, sock: socket.socket, address: str) -> None:
        """Begin with TLS on an accepted connection, unless its client has too many."""
        if not self._visitors.enter(address):
            sock.close()
            return
        handshake = self._loop.create_task(self._shake_hands(sock, address), name="TLS handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

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
