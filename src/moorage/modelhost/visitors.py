"""A client's connection, as the front sees it.

The socket may be with a worker, too, which sets it to blocking mode; so nothing here relies on the mode.
"""

import asyncio
import contextlib
import socket
from typing import Final

from moorage.modelhost.sockets import reset

_LINGER_SECONDS: Final = 2.0
_PIECE_BYTES = 64 * 1024


class Visitor:
    __slots__ = ("fd", "looked_at", "sock", "unused")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.looked_at = 0
        """How many bytes were there when they said too little."""
        self.unused = False
        """Whether nothing has come since somebody looked whether there is anything."""

    def peek(self, size: int) -> bytes | None:
        """What has come, without taking it. Empty when no more will come; None when nothing has yet."""
        try:
            return self.sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def take(self, size: int) -> None:
        self.sock.recv(size, socket.MSG_DONTWAIT)

    def wake_after(self, size: int) -> None:
        """It counts as readable from so many bytes on."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def send(self, reply: bytes) -> bool:
        """A reply of ours is short: who has no room for it has not read the earlier ones."""
        try:
            return self.sock.send(reply, socket.MSG_DONTWAIT) == len(reply)
        except OSError:
            return False

    def see_off(self, reply: bytes = b"") -> None:
        """Closes, but not over unread bytes at once: the client would be told of a reset before it has read the
        reply. What else it sends is dropped, for a while."""
        if reply:
            self.send(reply)
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        if not self._drop():
            self.close()
            return
        loop = asyncio.get_running_loop()
        late = loop.call_later(_LINGER_SECONDS, self._leave, loop)
        loop.add_reader(self.fd, self._drop_on, loop, late)

    def break_off(self) -> None:
        """The client shall see that its reply is not whole."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def reset(self) -> None:
        reset(self.sock)
        self.close()

    def close(self) -> None:
        self.sock.close()

    def _drop_on(self, loop: asyncio.AbstractEventLoop, late: asyncio.TimerHandle) -> None:
        if not self._drop():
            late.cancel()
            self._leave(loop)

    def _drop(self) -> bool:
        """Whether more may come."""
        try:
            return self.sock.recv(_PIECE_BYTES, socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self.fd)
        self.break_off()
