"""Connections to what stands behind the gateway: containers, the controller, the embedded S3.

An `UpstreamConnection` carries one `Exchange` at a time (a request and its reply), then goes back to its `Pool`. A
container may close an idle connection at any moment, and a request written just then is lost without its fault. So
idle connections are reused for a short time only, and an exchange is told whether its request can have been read:
`reply_broken(untouched=True)` means that the kernel of the other side discarded it, and it is safe to send it again.
"""

import asyncio
import errno
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httptools

from moorage import network_namespace
from moorage.heads import MOST_LEARNED, KnownHead, learn
from moorage.turns import Turns

Connector = Callable[[asyncio.AbstractEventLoop, Callable[[], asyncio.Protocol]], Awaitable[object]]
"""Opens a connection and gives it the protocol that the factory makes."""

_NOTHING = memoryview(b"")
_MOST_IDLE = 1024
_LONGEST_HEAD = 256 * 1024
_PIECE = 64 * 1024
_PIECE_OF_CHUNKS = 32 * 1024
"""How much of a reply is taken in at once. One in chunks is reported chunk by chunk, and they can be tiny."""

logger = logging.getLogger(__name__)


class Exchange(Protocol):
    """The side of a request and its reply that the connection reports to."""

    def connected(self, connection: "UpstreamConnection") -> None:
        """A connection is ready: write the request to it."""

    def not_connected(self, error: BaseException) -> None:
        """No connection could be made; the request has reached nobody."""

    def reply_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The reply's head; header names are lower-case."""

    def reply_data(self, chunk: bytes) -> None:
        """Some bytes of the reply's body."""

    def reply_end(self) -> None:
        """The reply is complete, and the connection back in its pool."""

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        """The connection broke before the reply was complete.

        `untouched`: no byte of a reply came, and the other side never read the request.
        """

    def reply_failed(self) -> None:
        """Handling the reply raised: a fault of ours, which has been logged."""

    def pause_request(self) -> None:
        """The other side does not read fast enough: write no more for now."""

    def resume_request(self) -> None:
        """The other side reads again."""


class UpstreamConnection(asyncio.Protocol):
    """Client side of one connection."""

    __slots__ = (
        "_exchange",
        "_framed",
        "_head_bytes",
        "_head_complete",
        "_headers",
        "_parser",
        "_pool",
        "_reading_paused",
        "_replying",
        "_transport",
        "_untaken",
        "idle_since",
        "request_complete",
        "reused",
        "without_body",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._head_complete = False
        self._framed = True
        self._replying = False
        self._reading_paused = False
        self._untaken = _NOTHING  # read, and not yet taken in
        self.reused = False
        self.idle_since = math.inf
        self.without_body = False
        """The reply has no body whatever its head says: the request was a HEAD."""
        self.request_complete = True
        """Whether the request has been written to its end; a connection left in the middle of one is spent."""

    def carry(self, exchange: Exchange) -> None:
        """Take an exchange on; it writes its request next."""
        self._exchange = exchange
        self._headers = {}
        self._head_bytes = 0
        self._head_complete = False
        self._framed = True
        self._replying = False
        self.without_body = False
        self.request_complete = True

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def writelines(self, data: list[bytes | bytearray]) -> None:
        self._transport.writelines(data)

    def pause_reading(self) -> None:
        self._reading_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._reading_paused = False
        if self._untaken:
            self._pool.turns.wait(self._take_more)
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Give the exchange up and cut the connection, so that the other side stops working on it."""
        self._exchange = None
        self._transport.abort()

    def close(self) -> None:
        self._exchange = None
        self._transport.close()

    @property
    def is_usable(self) -> bool:
        return not self._transport.is_closing()

    # --- asyncio's side -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        begins = not self._replying
        self._replying = True
        if self._exchange is None:
            self._transport.abort()  # it speaks unasked
        elif len(data) > _PIECE_OF_CHUNKS:
            self._take_in_turns(data)
        elif begins:
            known = self._pool.known_reply
            if known is None or not self._take_known(known, data):
                self._take(data)
                self._learn(data)
        else:
            self._take(data)

    def _take_in_turns(self, data: bytes) -> None:
        self._untaken = memoryview(data)
        self._take_piece()
        if self._untaken and b"content-length" in self._headers:  # it has been read by now
            self._take_piece()
        if self._untaken and not self._reading_paused and not self._transport.is_closing():
            self._transport.pause_reading()
            self._pool.turns.wait(self._take_more)

    def _take_more(self) -> None:
        if self._transport.is_closing():
            self._untaken = _NOTHING
        elif not self._reading_paused:  # else it goes on when the exchange wants more
            self._take_piece()
            if self._untaken:
                self._pool.turns.wait(self._take_more)
            elif not self._reading_paused and not self._transport.is_closing():
                self._transport.resume_reading()

    def _take_piece(self) -> None:
        size = _PIECE if b"content-length" in self._headers else _PIECE_OF_CHUNKS
        piece, self._untaken = self._untaken[:size], self._untaken[size:]
        if piece:
            self._take(piece)

    def _take_known(self, known: "KnownReply", data: bytes) -> bool:
        """Whether this is one whole reply like one before. If so it is passed on, as by the parser's events."""
        headers = known.head.read(data)
        if headers is None or self.without_body or self._exchange is None:
            return False
        self._pool.unlike = max(0, self._pool.unlike - 1)
        self._head_complete = True
        body = data[known.head.body_at :]
        try:
            self._exchange.reply_head(known.status, headers)
            if body and self._exchange is not None:
                self._exchange.reply_data(body)
        except Exception as error:
            self._fail(error)
        else:
            self._finish(reusable=True)
        return True

    def _learn(self, data: bytes) -> None:
        """The parser has taken this in: the next reply may be like it."""
        pool = self._pool
        whole = self._exchange is None and not self._transport.is_closing() and not self.without_body
        if whole and pool.unlike < MOST_LEARNED:
            pool.unlike += 1
            status = self._parser.get_status_code()
            has_body = status not in (204, 304)  # else it ends with its head, whatever that says
            head = learn(data, self._headers) if has_body and pool.unlike < MOST_LEARNED else None
            pool.known_reply = None if head is None else KnownReply(head, status)

    def _take(self, data: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("it answered with a protocol upgrade")
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)
        except httptools.HttpParserError as error:
            self._break(f"its reply is not valid HTTP ({error})")
        else:
            if not self._head_complete:
                self._head_bytes += len(data)
                if self._head_bytes > _LONGEST_HEAD:
                    self._break(f"the head of its reply exceeds {_LONGEST_HEAD} bytes")

    def eof_received(self) -> bool:
        if self._exchange is not None:
            if self._head_complete and not self._framed:
                self._finish(reusable=False)
            elif not self._replying and self._was_reset():
                self._break("its connection was reset", untouched=True)
        return False

    def _was_reset(self) -> bool:
        """Whether the other side had closed before the request reached it: then the kernel there has answered the
        request with a reset, which comes after the end of file."""
        error: int = self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error in (errno.EPIPE, errno.ECONNRESET)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._untaken and self._exchange is not None:
            rest, self._untaken = self._untaken, _NOTHING
            self._take(rest)
        self._pool.forget(self)
        if self._exchange is not None:
            reset = isinstance(exc, ConnectionResetError | BrokenPipeError)
            self._break(
                "its connection was reset" if reset else "it closed the connection",
                untouched=reset and not self._replying,
            )

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_request()

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_request()

    # --- the parser's side ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._exchange is None:
            self._pool.forget(self)  # something follows its reply: it cannot be trusted with another request
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:
            name = name.lower()
            before = self._headers.get(name)
            self._headers[name] = value if before is None else before + b"," + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._head_complete = True
        headers = self._headers
        self._framed = (
            b"content-length" in headers
            or status in (204, 304)
            or b"chunked" in headers.get(b"transfer-encoding", b"").lower()
        )
        if self._exchange is not None:
            self._exchange.reply_head(status, headers)
            if self.without_body:
                self._finish(reusable=False)

    def on_body(self, chunk: bytes) -> None:
        if self._exchange is not None:
            self._exchange.reply_data(chunk)

    def on_message_complete(self) -> None:
        if self._head_complete:
            self._finish(reusable=self._parser.should_keep_alive())
        else:
            self._headers = {}  # an interim reply (1xx) has ended

    def _finish(self, *, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return  # dropped meanwhile
        # A reply that outran its request leaves a connection nobody should be given.
        reusable = reusable and self.request_complete and not self._untaken
        if reusable and not self._transport.get_write_buffer_size():
            if self._reading_paused:  # for a client that did not read the end of this reply yet
                self.resume_reading()
            self._pool.give_back(self)
        else:
            self._transport.close()
        try:
            exchange.reply_end()
        except Exception:
            logger.exception("the end of a reply could not be handled")
            exchange.reply_failed()

    def _fail(self, error: BaseException) -> None:
        logger.error("a reply could not be handled", exc_info=error)
        exchange, self._exchange = self._exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.reply_failed()

    def _break(self, reason: str, *, untouched: bool = False) -> None:
        exchange, self._exchange = self._exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.reply_broken(untouched=untouched, reason=reason)


class KnownReply:
    """What the replies with one `KnownHead` have in common."""

    __slots__ = ("head", "status")

    def __init__(self, head: KnownHead, status: int) -> None:
        self.head = head
        self.status = status


class Pool:
    """Connections to one place, the latest used first. Taking and giving back are O(1)."""

    __slots__ = (
        "_closed",
        "_connect",
        "_connecting",
        "_idle",
        "_idle_seconds",
        "_loop",
        "_timeout_seconds",
        "known_reply",
        "turns",
        "unlike",
    )

    def __init__(
        self,
        connect: Connector,
        *,
        loop: asyncio.AbstractEventLoop,
        timeout_seconds: float,
        idle_seconds: float,
        turns: Turns | None = None,
    ) -> None:
        self.turns = turns or Turns(loop)
        """In which large replies are taken in."""
        self.known_reply: KnownReply | None = None
        self.unlike = 0
        """How many replies were not like the one before, less those that were."""
        self._connect = connect
        self._loop = loop
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self._idle: dict[UpstreamConnection, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Pool {len(self._idle)} idle, {len(self._connecting)} connecting>"

    def start(self, exchange: Exchange, *, fresh: bool = False) -> "asyncio.Task[None] | None":
        """Find a connection for the exchange, or make one if there is none or it is to be `fresh`.
        `connected` is called now, or when one has been made.

        Returns the task that is connecting, if one is; cancelling it gives the exchange up.
        """
        since = self._loop.time() - self._idle_seconds
        while self._idle and not fresh:
            connection, _ = self._idle.popitem()
            if connection.idle_since >= since and connection.is_usable:
                connection.carry(exchange)
                exchange.connected(connection)
                return None
            connection.close()
        task = self._loop.create_task(self._open(exchange), name="connect upstream")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _open(self, exchange: Exchange) -> None:
        connection = UpstreamConnection(self)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._connect(self._loop, lambda: connection)
        except (OSError, TimeoutError) as error:
            exchange.not_connected(error)
            return
        connection.carry(exchange)
        exchange.connected(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        if self._closed or len(self._idle) >= _MOST_IDLE:
            connection.close()
        else:
            connection.reused = True
            connection.idle_since = self._loop.time()
            self._idle[connection] = None

    def forget(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)

    def close_stale(self) -> None:
        """Close what has been idle for too long; called now and then."""
        fresh = self._loop.time() - self._idle_seconds
        while self._idle:
            connection = next(iter(self._idle))
            if connection.idle_since >= fresh:
                return
            del self._idle[connection]
            connection.close()

    def close(self) -> None:
        """Close the idle connections now and the busy ones as they end."""
        self._closed = True
        while self._idle:
            self._idle.popitem()[0].close()


def tcp(host: str, port: int, *, network: str = "") -> Connector:
    """`host` is an IP address, `network` the network namespace that it is in (`moorage.network_namespace`); empty:
    our own. Without the loop's search for addresses a connection costs half as much."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    async def connect(loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.Protocol]) -> object:
        if network:
            sock = await network_namespace.open_socket(network, family)
        else:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(sock, (host, port))
            return await loop.create_connection(factory, sock=sock)
        except BaseException:
            sock.close()
            raise

    return connect


def unix(path: str) -> Connector:
    return lambda loop, factory: loop.create_unix_connection(factory, path)
