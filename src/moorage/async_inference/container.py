"""One request to a container, for a coroutine: the body given in pieces, the reply read in pieces, both bounded.

The connections are those of the gateway (`moorage.upstream`); this is the side that waits. Every call has a new one:
a connection that was idle may be closed by the container at the very moment, and a death must not be taken for that.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from moorage.routing.table import Instance
from moorage.upstream import Pool, UpstreamConnection, tcp

_MOST_BUFFERED = 1024 * 1024


class NotConnected(Exception):
    """The container took no connection, or broke it before anything was sent: it has not seen the request."""


class ReplyBroken(Exception):
    """The connection broke before the reply was complete; the text says how."""


class ContainerCall:
    """An `Exchange`. Use as `async with`: what is left open when the block ends is cut off, so that the container
    stops working on it."""

    def __init__(self, instance: Instance, *, connect_timeout_seconds: float) -> None:
        self._pool = Pool(
            tcp(instance.host, instance.port, network=instance.network),
            loop=asyncio.get_running_loop(),
            timeout_seconds=connect_timeout_seconds,
            idle_seconds=0,
        )
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._reading_paused = False
        self._complete = False
        self._error: Exception | None = None
        self._sending: asyncio.Task[None] | None = None
        self._has_begun = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    async def __aenter__(self) -> "ContainerCall":
        """Raises `NotConnected`."""
        self._connecting = self._pool.start(self)
        try:
            await self._connected
        except BaseException:
            self._leave()
            raise
        finally:
            self._pool.close()  # keeps nothing that is given back
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()
        if self._sending is not None:
            self._sending.cancel()
            with suppress(asyncio.CancelledError):
                await self._sending

    def send(self, head: bytes, body: AsyncIterator[bytes]) -> None:
        """Send the request from now on, as fast as the container takes it, while the reply may come already. What
        `body` raises, `reply` and `read` raise."""
        self._sending = asyncio.create_task(self._send(head, body), name="send to a container")

    async def _send(self, head: bytes, body: AsyncIterator[bytes]) -> None:
        connection = self._connection
        if connection is None:
            return  # it broke meanwhile; `reply` says so
        self._has_begun = True
        connection.request_complete = False
        try:
            connection.write(head)
            async for piece in body:
                await self._may_write.wait()
                if self._connection is None or self.status >= 300:
                    return  # gone, or it has heard enough: what follows would be thrown away
                connection.write(piece)
            connection.request_complete = True
        except Exception as error:
            self._error = error
            self._wake()

    async def reply(self) -> int:
        """Wait for the head of the reply; its status. Raises `ReplyBroken`, `NotConnected` if nothing could be sent,
        and what the body raised."""
        while not self.status:
            await self._change()
        return self.status

    async def read(self) -> bytes:
        """The next bytes of the reply's body; none at its end. Raises as `reply` does."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._change()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._reading_paused and self._connection is not None:
            self._reading_paused = False
            self._connection.resume_reading()
        return data

    async def _change(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()

    def _leave(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    # --- what the connection reports ------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        if not self._connected.done():
            self._connected.set_result(None)

    def not_connected(self, error: BaseException) -> None:
        self._connecting = None
        if not self._connected.done():
            self._connected.set_exception(NotConnected(str(error) or type(error).__name__))

    def reply_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers
        self._wake()

    def reply_data(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        if self._buffered > _MOST_BUFFERED and not self._reading_paused and self._connection is not None:
            self._reading_paused = True
            self._connection.pause_reading()
        self._wake()

    def reply_end(self) -> None:
        self._connection = None
        self._complete = True
        self._wake()

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        self._connection = None
        self._break(reason)

    def reply_failed(self) -> None:
        self._connection = None
        self._break("its reply could not be handled; the server's log says why")

    def pause_request(self) -> None:
        self._may_write.clear()

    def resume_request(self) -> None:
        self._may_write.set()

    def _break(self, reason: str) -> None:
        if self._error is None:
            self._error = ReplyBroken(reason) if self._has_begun else NotConnected(reason)
        self._wake()

    def _wake(self) -> None:
        if self._connection is None or self.status >= 300:
            self._may_write.set()  # to be told that nothing more is wanted
        self._changed.set()
