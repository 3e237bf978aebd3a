"""Accepts connections, looks at what comes without taking it, and passes on those on which an invocation waits.

Everything else (GET /ping, 404, 405 ...) it answers itself, so that a ping has its answer while all workers are busy.
"""

import asyncio
import errno
import socket

import httptools

from moorage.modelhost import http
from moorage.modelhost.pool import WorkerPool
from moorage.modelhost.visitors import Visitor

# A proxy keeps its connections; the side that waits longer must be this one, or it closes under a request.
KEEP_ALIVE_SECONDS = 75

_OPENINGS = (b"POST /invocations ", b"POST /invocations?")
_GLANCE_BYTES = 32
_BACKLOG = 2048
_STRAGGLER_SECONDS = 2.0
"""How often it is looked, when the host stops, who has sent nothing more of a request."""

_ACCEPTS_AT_ONCE = 64
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_SECONDS = 0.1


class Reception:
    def __init__(self, pool: WorkerPool, listener: socket.socket) -> None:
        self._pool = pool
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._watched: set[Visitor] = set()
        self._closing = False
        self._tidying: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        pool.on_returned(self.watch)

    def __repr__(self) -> str:
        return f"<Reception watched={len(self._watched)} closing={self._closing}>"

    def open(self) -> None:
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._listen()
        self._tidying = self._loop.call_later(KEEP_ALIVE_SECONDS, self._tidy)

    def close(self) -> None:
        """No new connections. Of those that it watches the idle ones are closed; the others may finish."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._accept(_BACKLOG)  # who is connected has been promised an answer
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._closing = True
        self._note_emptiness()
        for visitor in list(self._watched):
            if visitor.peek(1) is None:
                self._dismiss(visitor)
        self._tidying = self._loop.call_later(_STRAGGLER_SECONDS, self._hurry)

    async def emptied(self) -> None:
        """Returns when it is closed and watches no connection."""
        await self._emptied.wait()

    def watch(self, visitor: Visitor) -> None:
        """Until an invocation waits on it."""
        if self._closing and visitor.peek(1) is None:
            visitor.see_off()
            return
        visitor.unused = False
        self._watched.add(visitor)
        self._emptied.clear()
        self._loop.add_reader(visitor.fd, self._look, visitor)

    def _listen(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self, at_most: int = _ACCEPTS_AT_ONCE) -> None:
        for _ in range(at_most):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    continue  # that client has gone already
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_RETRY_SECONDS, self._listen)
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            visitor = Visitor(sock)
            self.watch(visitor)
            self._look(visitor)  # a client sends with the connection

    def _look(self, visitor: Visitor) -> None:
        data = visitor.peek(_GLANCE_BYTES)
        if data is None:
            return
        if data.startswith(_OPENINGS):
            self._release(visitor)
            self._pool.take(visitor)
        elif not data:
            self._dismiss(visitor)
        elif any(opening.startswith(data) for opening in _OPENINGS):
            self._wait_for_more_than(len(data), visitor)
        else:
            self._receive(visitor)

    def _wait_for_more_than(self, size: int, visitor: Visitor) -> None:
        if size <= visitor.looked_at:  # awake, and yet no more: no more will come
            self._dismiss(visitor)
            return
        visitor.looked_at = size
        visitor.unused = False
        visitor.wake_after(size + 1)

    def _receive(self, visitor: Visitor) -> None:
        """The reply to a request that is no invocation, or is one in unusual words."""
        data = visitor.peek(http.MAX_HEAD_BYTES) or b""
        if blank := len(data) - len(data.lstrip(b"\r\n")):  # some send one between requests
            visitor.take(blank)
            self._look_from_the_start(visitor)
            return
        end = data.find(b"\r\n\r\n") + 4
        try:
            head = http.Head(data[:end] if end >= 4 else data)
        except httptools.HttpParserError as error:
            self._dismiss(visitor, http.text(400, http.malformed(error), close=True))
            return
        if not head.complete and len(data) >= http.MAX_HEAD_BYTES:
            self._dismiss(visitor, http.text(431, http.TOO_LARGE_A_HEAD, close=True))
        elif not head.complete:
            self._wait_for_more_than(len(data), visitor)
        elif http.is_invocation(head.method, head.url):
            self._release(visitor)
            self._pool.take(visitor)
        else:
            visitor.take(end)
            self._answer(visitor, head)

    def _answer(self, visitor: Visitor, head: http.Head) -> None:
        close = not head.keep_alive or head.has_body or self._closing
        reply = http.other(head.method, head.url, trouble=self._pool.trouble, close=close)
        if close:
            self._dismiss(visitor, reply)
        elif visitor.send(reply):
            visitor.unused = False
            self._look_from_the_start(visitor)
        else:
            self._dismiss(visitor)

    def _look_from_the_start(self, visitor: Visitor) -> None:
        if visitor.looked_at:
            visitor.looked_at = 0
            visitor.wake_after(1)

    def _release(self, visitor: Visitor) -> None:
        self._look_from_the_start(visitor)
        self._watched.discard(visitor)
        self._loop.remove_reader(visitor.fd)
        self._note_emptiness()

    def _note_emptiness(self) -> None:
        if self._closing and not self._watched:
            self._emptied.set()

    def _dismiss(self, visitor: Visitor, reply: bytes = b"") -> None:
        self._release(visitor)
        visitor.see_off(reply)

    def _tidy(self) -> None:
        self._close_unused()
        self._pool.tidy()
        self._tidying = self._loop.call_later(KEEP_ALIVE_SECONDS, self._tidy)

    def _hurry(self) -> None:
        self._close_unused()
        self._tidying = self._loop.call_later(_STRAGGLER_SECONDS, self._hurry)

    def _close_unused(self) -> None:
        """Those from which nothing has come since the last time."""
        for visitor in list(self._watched):
            if visitor.unused:
                self._dismiss(visitor)
            visitor.unused = True
