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
    """The connections of this process, and how many of them come from one IP address. 0 is no limit."""

    def __init__(self, most_of_one: int = 0, most: int = 0) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._all = 0
        self._counts: dict[str, int] = {}
        self._told: set[str] = set()  # of whom the log has said that they have too many; "" is for all

    def __repr__(self) -> str:
        return f"<Visitors {self._all} connections of {len(self._counts)} clients>"

    def enter(self, address: str) -> bool:
        """Count one more, which must `leave` again; False if this client, or this process, has all that it may."""
        count = self._counts.get(address, 0)
        if self._most and self._all >= self._most:
            self._tell("", "connections are refused: there are %d, as max_connections allows", self._all)
            return False
        if self._most_of_one and count >= self._most_of_one:
            self._tell(
                address,
                "connections from %s are refused while it has %d, as max_connections_per_client allows",
                address,
                count,
            )
            return False
        self._counts[address] = count + 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        count = self._counts.get(address, 0)
        if not count:
            return
        self._all -= 1
        self._told.discard("")
        if count > 1:
            self._counts[address] = count - 1
        else:
            del self._counts[address]
            self._told.discard(address)

    def _tell(self, about: str, message: str, *details: object) -> None:
        if about not in self._told:
            self._told.add(about)
            logger.warning(message, *details)


class TlsDoor:
    """Accepts connections, counts them, and only then begins with TLS, which the loop's own server would do first.

    One too many is cut off without a word, for its client would not understand one: to SDKs that is a
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
        """Begin with TLS on an accepted connection, unless there are too many."""
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
