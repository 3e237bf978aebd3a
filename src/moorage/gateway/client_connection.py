"""A client's connection: HTTP/1.1 in, requests out to the front, replies back in order.

Theory of the file. llhttp (through httptools) turns bytes into events; a `Request` collects the head. When the head
is complete the front's `begin` names a `Call`, which then gets the body as it arrives (`data`, `end`) and is told
when the client has gone (`cancel`). A reply may come at any moment from `begin` on.

* One request at a time is *active*, from its `begin` until the client has taken (nearly all of) its reply. What a
  client pipelines behind it is parsed into *parked* requests while reading is paused, so no more than one socket read
  is ever kept, and no reply is made for a client that does not read; they are begun in order. What cannot be parsed
  is parked as a request too, with its `refusal`.
* A reply that comes before the body was read closes the connection, but not at once: closing with bytes unread
  would make the kernel reset the connection, and the client might never see the reply. The rest is read and
  dropped for `LINGER_SECONDS`.
* Nothing here waits. Time limits are `deadline`s that the server's sweep compares with the clock. A deadline runs
  only while it is the client's turn: to send, or to take its reply.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Protocol, cast

import httptools

from moorage.config import Settings
from moorage.errors import (
    OUR_FAULT,
    InternalFailure,
    MalformedHttpRequestException,
    RequestTimeoutException,
    ServiceError,
    ServiceUnavailable,
)
from moorage.gateway import http
from moorage.gateway.request import DONE, Front, KnownRequest, Refused, Request
from moorage.gateway.unverified import (
    LONGEST_WAIT_SECONDS,
    SMALL_BODY,
    OutOfBodyMemory,
    Reservation,
    UnverifiedBodies,
)
from moorage.heads import MOST_LEARNED, decimal, learn
from moorage.turns import Turns
from moorage.wire import header_text

LINGER_SECONDS = 3.0
_GOODBYE_SECONDS = 1.0
_SMALL = 64 * 1024
_PIECE_OF_HEAD = 8 * 1024
_PIECE_OF_BODY = 64 * 1024
"""How much is parsed before a look at what it has come to."""

_REQUESTS_AT_ONCE = 8
"""How many requests may begin in what is parsed before everyone else has a turn. One that is refused by its head is
answered while it is parsed, and a read can hold ten thousand of those."""

_PIECE_OF_MANY = 1024
"""How much is parsed without a break of a client that has sent so many together."""

_NOTHING = memoryview(b"")

_NO_UPGRADE = "CONNECT and Upgrade are not supported: send HTTP/1.1 without them."
_NEVER_REPEATED = frozenset((b"host", b"authorization", b"content-length", b"x-amz-date"))
logger = logging.getLogger(__name__)


class Visitors(Protocol):
    """Counts connections by where they come from."""

    def enter(self, address: str) -> bool:
        """False if one more is too many."""

    def leave(self, address: str) -> None: ...


class ClientConnection(asyncio.Protocol):
    """Server side of one TCP connection. Registered in `connections` while it lives;
    `all_closed` is set while there is none."""

    __slots__ = (
        "_active",
        "_all_closed",
        "_begun",
        "_bodies",
        "_body_bytes",
        "_body_held",
        "_closing",
        "_connections",
        "_front",
        "_giving_way",
        "_head_bytes",
        "_headers",
        "_known",
        "_loop",
        "_opening",
        "_parser",
        "_piece",
        "_reading",
        "_reading_paused",
        "_received_at",
        "_repeated_headers",
        "_reservation",
        "_settings",
        "_transport",
        "_turns",
        "_unfed",
        "_unlike",
        "_unsent_bytes",
        "_visitors",
        "_waiting",
        "client_address",
        "counted",
        "deadline",
        "internal",
        "limited",
        "request_ids",
        "secure",
    )

    def __init__(
        self,
        *,
        front: Front,
        turns: Turns,
        settings: Settings,
        connections: set["ClientConnection"],
        visitors: Visitors,
        bodies: UnverifiedBodies,
        all_closed: asyncio.Event,
        opening: http.ReplyOpening,
        request_ids: Iterator[bytes],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # the server's
        self._front = front
        self._turns = turns
        self._settings = settings
        self._connections = connections
        self._visitors = visitors
        self._bodies = bodies
        self._all_closed = all_closed
        self._opening = opening
        self.request_ids = request_ids
        self._loop = loop
        # the connection's
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._closing = False
        self._reading_paused = False
        self._unsent_bytes = 0  # of a reply that the client is slow to take; else 0
        self.secure = False
        """Whether the client speaks TLS."""
        self.internal = False
        """Whether it came in by the listener for the server's own processes and containers, at the loopback."""
        self.client_address = ""
        """The client's IP address."""
        self.counted = False
        """Whether it is among the visitors until it is lost."""
        self.limited = False
        """Whether there are limits to what the owner of a key may ask through it."""
        self.deadline = math.inf
        # the requests'
        self._received_at = 0.0  # when what is being read came
        self._head_bytes = 0  # since the last head or piece of body: of a head, or of trailers
        self._headers: dict[bytes, bytes] | None = None  # of the head being parsed
        self._known: KnownRequest | None = None
        self._unlike = 0  # how many requests were not like the one before, less those that were
        self._repeated_headers = 0
        self._begun = 0  # requests that have begun in what was parsed since others had a turn
        self._piece = _PIECE_OF_HEAD  # what is larger is parsed in pieces, of a quarter of it
        self._unfed = _NOTHING  # read, and not parsed yet
        self._body_held = False
        self._body_bytes = 0  # about how much of it has been read, while it has no reservation
        self._reservation: Reservation | None = None  # for the body being read, once it is known to need one
        self._giving_way = False
        self._reading: Request | None = None  # being parsed
        self._active: Request | None = None  # being answered
        self._waiting: deque[Request] = deque()  # parked behind the active one

    # --- asyncio's side -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.secure = transport.get_extra_info("sslcontext") is not None
        peer = transport.get_extra_info("peername")
        if peer is None:  # it has gone already
            self._transport.abort()
            return
        self.client_address = peer[0]
        # With TLS it was counted before the handshake.
        self.counted = self.secure or self._visitors.enter(self.client_address)
        if not self.counted:
            self._closing = True
            self._transport.write(http.TOO_MANY_CONNECTIONS)
            self._transport.close()
            return
        self._connections.add(self)
        self._all_closed.clear()
        self.deadline = self._loop.time() + self._settings.idle_timeout_seconds

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # lingering: answered already, the rest is dropped
        reading = self._reading
        self._received_at = now = monotonic()  # the loop's own time has milliseconds only
        between_requests = self._active is None and reading is None and not self._head_bytes
        if between_requests and self._known is not None and self._take_known(self._known, data):
            return
        if self._active is None or self._active is reading:
            settings = self._settings
            if reading is not None and reading.head_complete:
                self.deadline = now + settings.body_timeout_seconds
            elif not self._head_bytes:
                self.deadline = now + settings.header_timeout_seconds
        self._parse(data, between_requests)

    def _parse(self, data: bytes | memoryview, between_requests: bool) -> None:
        try:
            size = len(data)
            if size > self._piece or self._unfed:
                self._feed_in_pieces(memoryview(data))
            else:
                self._begun = 0
                self._head_bytes += size
                self._parser.feed_data(data)
                if self._begun > _REQUESTS_AT_ONCE:
                    self._piece = _PIECE_OF_MANY
        except httptools.HttpParserCallbackError as error:
            self._answer_reading(_service_error(error.__context__ or error))
        except httptools.HttpParserError as error:
            self._malformed(f"The request is not valid HTTP/1.1: {error}.")
        except httptools.HttpParserUpgrade:  # behind a refused request, where no one has looked at the head
            self._malformed(_NO_UPGRADE)
        else:
            reading = self._reading
            if reading is not None:
                if self._head_bytes > self._settings.max_header_bytes:
                    self._malformed(self._too_large())
                elif reading is self._active and reading.head_complete:
                    self._reserve(reading, len(data))
            elif between_requests and self._unlike < MOST_LEARNED and isinstance(data, bytes):
                self._learn(data)

    def _reserve(self, request: Request, received: int) -> None:
        """Of this body so many bytes have come with the last read, and more is to come."""
        reservation = self._reservation
        if reservation is not None:
            reservation.received += received
            return
        self._body_bytes += received  # with the head, perhaps
        length = request.content_length
        if (self._body_bytes if length is None else length) <= SMALL_BODY:
            return
        try:
            key_id, size = request.call.unverified_body()
        except Exception as error:
            self._refuse(request, error)
            return
        self._reservation = reservation = self._bodies.reserve(self, self.client_address, key_id, size)
        if not reservation.granted:
            self.hold_body(held=True)
            self.deadline = self._loop.time() + LONGEST_WAIT_SECONDS

    def memory_granted(self) -> None:
        self.hold_body(held=False)

    def memory_withdrawn(self) -> None:
        self._answer_reading(
            OutOfBodyMemory(
                "The request's body came too slowly while others waited for memory (max_unverified_bytes, "
                "max_unverified_bytes_per_client). Please try again, on a faster connection."
            )
        )

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._bodies.release(reservation)

    def _take_known(self, known: KnownRequest, data: bytes) -> bool:
        """Whether this is one whole request like that before. If so it is begun, as by the parser's events."""
        head = known.head
        headers = head.read(data)
        if headers is None or head.body_at > self._settings.max_header_bytes:
            return False
        self._unlike = max(0, self._unlike - 1)
        request = Request(self)
        request.known = known
        request.method = known.method
        request.target = known.target
        request.headers = headers
        request.head_complete = True
        request.body_complete = True
        request.received_at = self._received_at
        self.deadline = math.inf
        body = data[head.body_at :]
        self._begin(request)
        if not request.replied:
            try:
                if body:
                    request.call.data(body)
            except Exception as error:
                self._refuse(request, error)
            self._end(request)
        return True

    def _learn(self, data: bytes) -> None:
        """The parser has taken this in: the next request may be like it."""
        request = self._active
        if request is not None and request.body_complete and request.keep_alive and not self._waiting:
            self._unlike += 1
            head = learn(data, request.headers) if self._unlike < MOST_LEARNED else None
            self._known = None if head is None else KnownRequest(head, request)

    def _feed_in_pieces(self, data: memoryview) -> None:
        """One read can hold many thousand headers or requests, which would keep everyone else waiting, and memory,
        before anybody looked at their number. After one that holds much, everyone else has a turn before the next;
        after some requests, before the rest of it."""
        if self._unfed:  # it came although reading is paused
            self._unfed = memoryview(b"".join((self._unfed, data)))
            return
        self._begun = 0
        at = 0
        while at < len(data) and not self._closing:
            if self._begun > _REQUESTS_AT_ONCE or (at and self._waiting):
                self._piece = _PIECE_OF_MANY
                self._unfed = data[at:]
                break
            reading = self._reading
            size = _PIECE_OF_BODY if reading is not None and reading.head_complete else self._piece // 4
            piece = data[at : at + size]
            at += size
            self._head_bytes += len(piece)
            self._parser.feed_data(piece)
            if self._headers is not None and len(self._headers) > self._settings.max_headers:
                self._malformed(self._too_many())
                return
            if self._reading is not None and self._head_bytes > self._settings.max_header_bytes:
                return  # refused by `_parse`
        if self._unfed or len(data) > _PIECE_OF_BODY:
            self._give_way()

    def _give_way(self) -> None:
        if not self._giving_way and not self._closing:
            self._giving_way = True
            self._adjust_reading()
            self._turns.wait(self._read_on)

    def _read_on(self) -> None:
        """Everyone else has had a turn."""
        self._giving_way = False
        if self._unfed and not (self._closing or self._body_held or self._waiting):
            data, self._unfed = self._unfed, _NOTHING
            self._received_at = monotonic()
            self._parse(data, False)
        self._adjust_reading()

    def eof_received(self) -> None:
        """A client that closes its side has gone, unless it broke off a request: then it may still listen. Nothing
        more can come from it, so the connection need not linger: it is closed once what was written has left."""
        reading = self._reading
        if reading is not None and not self._closing and self._active in (None, reading):
            self._malformed("The request ended before its head or body was complete.")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.counted:
            self._visitors.leave(self.client_address)
        self._connections.discard(self)
        if not self._connections:
            self._all_closed.set()
        self._closing = True
        self._reading = None
        self._waiting.clear()
        self._unfed = _NOTHING
        self._release()
        # It refers to this connection in turn, and both would stay until the garbage collector comes by.
        self._parser = cast(httptools.HttpRequestParser, None)
        if self._active is not None:
            call, self._active.call = self._active.call, DONE
            self._active = None
            call.cancel()

    def pause_writing(self) -> None:
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self._settings.body_timeout_seconds
        if self._active is not None:
            self._active.call.pause_reply()

    def resume_writing(self) -> None:
        self._unsent_bytes = 0
        active = self._active
        if self._closing or active is None:
            return
        self.deadline = math.inf if active.body_complete else self._body_deadline()
        if active.replied:
            self._next(active)
        else:
            active.call.resume_reply()

    # --- the parser's side ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._closing:
            return
        self._reading = request = Request(self)
        self._begun += 1
        self._headers = request.headers
        self._repeated_headers = 0
        self._body_bytes = 0
        if self._active is not None:
            self._waiting.append(request)
            self._adjust_reading()

    def on_url(self, url: bytes) -> None:
        if self._reading is not None:
            self._reading.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if headers is None:  # closing, or a trailer
            return
        name = name.lower()
        value = value.rstrip()
        if name in headers:
            if name in _NEVER_REPEATED:
                raise MalformedHttpRequestException(f"The header {name.decode()} must not be repeated.")
            value = headers[name] + b"," + value
            self._repeated_headers += 1
            if self._repeated_headers > self._settings.max_headers:
                raise MalformedHttpRequestException(self._too_many())
        headers[name] = value

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        headers, parser, settings = request.headers, self._parser, self._settings
        self._headers = None
        request.head_complete = True
        request.method = parser.get_method()
        request.keep_alive = request.keep_alive and parser.should_keep_alive()
        version = parser.get_http_version()
        if version == "1.1":
            if b"host" not in headers:
                raise MalformedHttpRequestException("The header Host is required.")
            expect = headers.get(b"expect")
            request.expects_continue = expect is not None and expect.lower() == b"100-continue"
        elif version == "1.0":
            request.keep_alive = request.understands_chunks = False
        else:
            raise MalformedHttpRequestException(f"HTTP/{version} is not supported here, HTTP/1.1 is.")
        if not request.target.startswith(b"/"):
            request.target = _origin_form(request)
        if (b"upgrade" in headers or request.method == b"CONNECT") and parser.should_upgrade():
            raise MalformedHttpRequestException(_NO_UPGRADE)
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None and encoding.lower() != b"chunked":
            raise MalformedHttpRequestException("The only transfer encoding supported is 'chunked'.")
        if len(headers) + self._repeated_headers > settings.max_headers:
            raise MalformedHttpRequestException(self._too_many())
        pipelines = self._piece < _PIECE_OF_HEAD  # then heads begin within what was counted for others
        if pipelines or self._head_bytes > settings.max_header_bytes or self._active is not None:
            self._check_head_size(request)
        self._head_bytes = 0
        if self._active is None:
            self._begin(request)

    def on_body(self, chunk: bytes) -> None:
        request = self._reading
        if request is None:
            return
        self._head_bytes = 0
        if request is self._active:
            try:
                request.call.data(chunk)
            except Exception as error:
                self._refuse(request, error)
        else:
            request.parked.append(chunk)

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        request.body_complete = True
        self._head_bytes = 0
        if request is self._active:
            self.deadline = math.inf
            request.received_at = self._received_at
            self._end(request)
            if self._reservation is not None:
                self._release()

    # --- requests -------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._active = request
        try:
            call = self._front.begin(request)
        except Exception as error:
            self._refuse(request, error)
            return
        if not request.replied:
            request.call = call
            if request.expects_continue and not request.body_complete and not request.parked:
                self._transport.write(http.CONTINUE)

    def _end(self, request: Request) -> None:
        try:
            request.call.end()
        except Exception as error:
            self._refuse(request, error)

    def _begin_waiting(self) -> None:
        """Begin the next parked request, with what has arrived of its body."""
        request = self._waiting.popleft()
        if request.refusal is not None:
            self._answer(request, request.refusal)
            return
        if not request.head_complete:
            # It is still being read, and begins when its head is complete.
            self.deadline = self._loop.time() + self._settings.header_timeout_seconds
            return
        self.deadline = math.inf if request.body_complete else self._body_deadline()
        self._begin(request)
        for chunk in request.parked:
            try:
                request.call.data(chunk)
            except Exception as error:
                self._refuse(request, error)
        request.parked.clear()
        if request.body_complete:
            request.received_at = monotonic()
            self._end(request)

    def _refuse(self, request: Request, error: BaseException) -> None:
        """Handling the request raised: an error for the client, or a bug of ours."""
        call, request.call = request.call, DONE
        call.cancel()
        self._release()
        refusal = _service_error(error)
        remaining = 0 if request.body_complete else request.content_length
        if request.body_complete or remaining is None or remaining > _SMALL or request.expects_continue:
            self.fail(request, refusal)
        else:
            request.call = Refused(request, refusal)

    def _check_head_size(self, request: Request) -> None:
        """The count of bytes may include body or other requests: measure the head itself."""
        size = len(request.target) + sum(len(n) + len(v) + 4 for n, v in request.headers.items())
        if size > self._settings.max_header_bytes:
            raise MalformedHttpRequestException(self._too_large())

    def _too_many(self) -> str:
        return f"The request has more than {self._settings.max_headers} headers."

    def _too_large(self) -> str:
        return f"The request's head, or its trailers, exceed {self._settings.max_header_bytes} bytes."

    # --- replies --------------------------------------------------------------------------------------

    def send_reply(self, request: Request, status: int, lines: bytes, body: bytes) -> None:
        if request.replied:
            return
        if request.method == b"HEAD":
            lines += b"Content-Length: %d\r\n" % len(body)
            self.send_head(request, status, lines)
            self.finish(request)
            return
        head = b"%bx-amzn-RequestId: %b\r\n%bContent-Length: %b\r\n%b\r\n" % (
            self._opening(status),
            request.request_id,
            lines,
            decimal(len(body)),
            b"" if self._will_keep_alive(request) else b"Connection: close\r\n",
        )
        if len(body) <= _SMALL:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self.finish(request)

    def send_head(self, request: Request, status: int, lines: bytes) -> None:
        request.reply_begun = True
        self._transport.write(
            b"%bx-amzn-RequestId: %b\r\n%b%b\r\n"
            % (
                self._opening(status),
                request.request_id,
                lines,
                b"" if self._will_keep_alive(request) else b"Connection: close\r\n",
            )
        )

    def write(self, data: bytes | bytearray) -> None:
        if not self._transport.is_closing():  # else it is about to hear that the client has gone
            self._transport.write(data)

    def finish(self, request: Request) -> None:
        """The reply is complete: on to the next request, or to the end of the connection."""
        request.replied = True
        request.call = DONE
        self._body_held = False
        if not request.body_complete:
            self._closing = True
            self._active = None
            self.deadline = self._loop.time() + LINGER_SECONDS
            if self._transport.can_write_eof():  # TLS cannot end one direction only
                self._transport.write_eof()
            self._adjust_reading()
        elif self._closing or not request.keep_alive:
            self._closing = True
            self._active = None
            self.deadline = self._body_deadline()
            self._transport.close()
        elif self._unsent_bytes:
            pass  # still active: the next one begins when the client has taken this reply
        elif self._waiting:
            # Not from within the call that has just replied: a client could nest us arbitrarily deep.
            self._loop.call_soon(self._next, request)
        else:
            self._active = None
            self.deadline = self._loop.time() + self._settings.idle_timeout_seconds
            if self._reading_paused:
                self._adjust_reading()

    def _next(self, finished: Request) -> None:
        if self._active is not finished or self._closing or self._unsent_bytes:
            return
        self._active = None
        if self._waiting:
            self._begin_waiting()
        else:
            self.deadline = self._loop.time() + self._settings.idle_timeout_seconds
        self._adjust_reading()

    def fail(self, request: Request, error: ServiceError) -> None:
        if request.reply_begun:
            self.abort()
        else:
            self.send_reply(request, *self._front.render_error(request, error))

    def abort(self) -> None:
        self._transport.abort()

    def hold_body(self, *, held: bool) -> None:
        """Whether the active request's call wants no more of the body for now."""
        self._body_held = held
        if self._active is not None and not self._active.body_complete:
            self.deadline = self._body_deadline()
        self._adjust_reading()

    def _adjust_reading(self) -> None:
        if self._unfed and not (self._body_held or self._giving_way or self._waiting):
            self._give_way()  # and then on with what has been read
            return
        paused = self._body_held or self._giving_way or bool(self._waiting) or bool(self._unfed)
        if paused is not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- the end --------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        unsent = self._transport.get_write_buffer_size()
        if unsent and self._unsent_bytes > unsent:
            self._unsent_bytes = unsent  # slow, but it does take its reply
            self.deadline = self._body_deadline()
            return
        self.deadline = math.inf
        reading = self._reading
        if self._closing or unsent or (reading is None and self._active is not None):
            self._transport.abort()  # lingered long enough, or the client does not take its reply
        elif reading is None:
            self._close_idle()
        elif self._reservation is not None and not self._reservation.granted:
            self._answer_reading(
                OutOfBodyMemory(
                    "The gateway had no memory for the request's body in time: the bodies that were arriving took "
                    "all that max_unverified_bytes or max_unverified_bytes_per_client allows. Please try again."
                )
            )
        elif self._body_held:
            self._answer_reading(ServiceUnavailable("The request's body was not taken in time."))
        else:
            part = "body" if reading.head_complete else "head"
            self._answer_reading(RequestTimeoutException(f"The request's {part} did not arrive in time."))

    def drain(self) -> None:
        """Close now if idle, else after the requests that have arrived."""
        last = self._waiting[-1] if self._waiting else self._active or self._reading
        if last is None:
            self._close_idle()
        elif last.replied:
            last.keep_alive = False
            self._closing = True
            self._transport.close()
        else:
            last.keep_alive = False

    def _close_idle(self) -> None:
        self._transport.close()
        if self.secure:  # it waits for the client's own goodbye, and who is idle may not be listening
            self._loop.call_later(_GOODBYE_SECONDS, self._transport.abort)

    def _will_keep_alive(self, request: Request) -> bool:
        return request.keep_alive and request.body_complete and not self._closing

    def _body_deadline(self) -> float:
        return self._loop.time() + self._settings.body_timeout_seconds

    def _malformed(self, message: str) -> None:
        self._answer_reading(MalformedHttpRequestException(message))

    def _answer_reading(self, error: ServiceError) -> None:
        """Answer what is being read with an error, and read no further."""
        if self._closing:
            return
        request = self._reading or Request(self)
        if self._active in (None, request):
            self._reading = self._headers = None
            self._answer(request, error)
        else:  # pipelined behind a good one, which is answered first
            if request not in self._waiting:
                self._waiting.append(request)
            request.refusal = error
            self._reading = None
            self._adjust_reading()

    def _answer(self, request: Request, error: ServiceError) -> None:
        call, request.call = request.call, DONE
        call.cancel()
        self._release()
        self._active = request
        self.fail(request, error)


def _origin_form(request: Request) -> bytes:
    """The target of a request that was sent as to a proxy, `POST http://host/path`, without what it adds."""
    scheme, colon, rest = request.target.partition(b"://")
    if not colon or scheme.lower() not in (b"http", b"https"):
        raise MalformedHttpRequestException(
            f"{request.method.decode()} {header_text.decode(request.target)} is not supported."
        )
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"


def _service_error(error: BaseException) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    logger.error("internal failure", exc_info=error)
    return InternalFailure(OUR_FAULT)
