"""A client's connection: HTTP/1.1 in, requests out to the front, replies back in order.

Theory of the file. llhttp (through httptools) turns bytes into events; a `Request` collects the head. When the head
is complete the front's `begin` names a `Call`, which then gets the body as it arrives (`data`, `end`) and is told
when the client has gone (`cancel`). A reply may come at any moment from `begin` on.

* One request at a time is *active*. What a client pipelines behind it is parsed into *parked* requests while
  reading is paused, so no more than one socket read is ever kept; they are begun in order.
* A reply that comes before the body was read closes the connection, but not at once: closing with bytes unread
  would make the kernel reset the connection, and the client might never see the reply. The rest is read and
  dropped for `LINGER_SECONDS`.
* Nothing here waits. Time limits are `deadline`s that the server's sweep compares with the clock.
"""

import asyncio
import logging
import math
from collections import deque
from typing import Protocol, cast

import httptools

from moorage.config import Settings
from moorage.errors import (
    InternalFailure,
    MalformedHttpRequestException,
    RequestTimeoutException,
    ServiceError,
)
from moorage.gateway import http

LINGER_SECONDS = 3.0
_SMALL = 64 * 1024
logger = logging.getLogger(__name__)


class Call(Protocol):
    """What the front does with one request."""

    def data(self, chunk: bytes) -> None:
        """Some bytes of the body. May raise `ServiceError`."""

    def end(self) -> None:
        """The body is complete. May raise `ServiceError`."""

    def cancel(self) -> None:
        """The client has gone, or its request broke off: release everything, reply nothing."""

    def pause_reply(self) -> None:
        """The client does not read fast enough: produce no more of the reply for now."""

    def resume_reply(self) -> None:
        """The client reads again."""


class Front(Protocol):
    """Answers requests."""

    def begin(self, request: "Request") -> Call:
        """The head has arrived. May raise `ServiceError`."""

    def render_error(self, request: "Request", error: ServiceError) -> tuple[int, bytes, bytes]:
        """Status, header lines (each ended by CRLF) and body of an error reply."""


class _Done:
    """The call of a request that has been answered: what else arrives is dropped."""

    def data(self, chunk: bytes) -> None:
        pass

    def end(self) -> None:
        pass

    cancel = pause_reply = resume_reply = end


_DONE = _Done()


class _Refused(_Done):
    """The call of a request refused by its head: answered when its (short) body has passed, so that the connection
    can be kept."""

    def __init__(self, request: "Request", error: ServiceError) -> None:
        self._request = request
        self._error = error

    def end(self) -> None:
        self._request.fail(self._error)


class Request:
    """One request and its reply. Header names are lower-case; the values of a repeated one joined by commas."""

    __slots__ = (
        "_connection",
        "body_complete",
        "call",
        "expects_continue",
        "head_complete",
        "headers",
        "keep_alive",
        "method",
        "parked",
        "replied",
        "reply_begun",
        "request_id",
        "target",
    )

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.request_id = connection.new_request_id()
        self.call: Call = _DONE
        self.keep_alive = True
        self.expects_continue = False
        self.head_complete = False
        self.body_complete = False
        self.parked: list[bytes] = []
        self.reply_begun = False
        self.replied = False

    @property
    def content_length(self) -> int | None:
        """The declared length of the body in bytes; None when it comes in chunks."""
        if b"transfer-encoding" in self.headers:
            return None
        return int(self.headers.get(b"content-length", b"0"))

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole reply. `lines` are header lines, each ended by CRLF; the length is added."""
        self._connection.send_reply(self, status, lines, body)

    def begin_reply(self, status: int, lines: bytes) -> None:
        """Send the head of a reply whose body follows by `write`; `lines` say how it is framed."""
        self._connection.send_head(self, status, lines)

    def write(self, data: bytes) -> None:
        self._connection.write(data)

    def end_reply(self) -> None:
        self._connection.finish(self)

    def abort(self) -> None:
        """Cut the connection: a reply that has begun cannot be completed."""
        self._connection.abort()

    def fail(self, error: ServiceError) -> None:
        """Answer with an error; if a reply has begun there is no way but to cut the connection."""
        self._connection.fail(self, error)

    def pause_reading(self) -> None:
        """Take no more of the body from the client for now."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        self._connection.resume_reading()


class ClientConnection(asyncio.Protocol):
    """Server side of one TCP connection. Registered in `connections` while it lives;
    `all_closed` is set while there is none."""

    __slots__ = (
        "_active",
        "_all_closed",
        "_closing",
        "_connections",
        "_date",
        "_front",
        "_head_bytes",
        "_loop",
        "_parser",
        "_reading",
        "_reading_paused",
        "_settings",
        "_transport",
        "_waiting",
        "deadline",
        "new_request_id",
    )

    def __init__(
        self,
        *,
        front: Front,
        settings: Settings,
        connections: set["ClientConnection"],
        all_closed: asyncio.Event,
        date: http.DateLine,
        request_ids: http.RequestIds,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # the server's
        self._front = front
        self._settings = settings
        self._connections = connections
        self._all_closed = all_closed
        self._date = date
        self.new_request_id = request_ids
        self._loop = loop
        # the connection's
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._closing = False
        self._reading_paused = False
        self.deadline = math.inf
        # the requests'
        self._head_bytes = 0
        self._reading: Request | None = None  # being parsed
        self._active: Request | None = None  # being answered
        self._waiting: deque[Request] = deque()  # parked behind the active one

    # --- asyncio's side -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._all_closed.clear()
        self.deadline = self._loop.time() + self._settings.idle_timeout_seconds

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # lingering: answered already, the rest is dropped
        reading = self._reading
        if reading is None or not reading.head_complete:
            if not self._head_bytes:
                self.deadline = self._loop.time() + self._settings.header_timeout_seconds
            self._head_bytes += len(data)
        else:
            self.deadline = self._loop.time() + self._settings.body_timeout_seconds
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._malformed("Upgrade and CONNECT are not supported.")
        except httptools.HttpParserCallbackError as error:
            self._answer_reading(_service_error(error.__context__ or error))
        except httptools.HttpParserError as error:
            self._malformed(f"The request is not valid HTTP/1.1: {error}.")
        else:
            reading = self._reading
            if (
                reading is not None
                and not reading.head_complete
                and self._head_bytes > self._settings.max_header_bytes
            ):
                self._malformed(f"The request's head exceeds {self._settings.max_header_bytes} bytes.")

    def eof_received(self) -> bool:
        """A client that closes its side has gone, unless it broke off a request: then it may still listen."""
        reading = self._reading
        if reading is None or self._closing or self._active not in (None, reading):
            return False
        self._malformed("The request ended before its head or body was complete.")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if not self._connections:
            self._all_closed.set()
        self._closing = True
        self._reading = None
        self._waiting.clear()
        if self._active is not None:
            call, self._active.call = self._active.call, _DONE
            self._active = None
            call.cancel()

    def pause_writing(self) -> None:
        self.deadline = self._loop.time() + self._settings.body_timeout_seconds
        if self._active is not None:
            self._active.call.pause_reply()

    def resume_writing(self) -> None:
        self.deadline = math.inf if self._active is not None else self._idle_deadline()
        if self._active is not None:
            self._active.call.resume_reply()

    # --- the parser's side ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._closing:
            return
        self._reading = Request(self)
        if self._active is not None:
            self._waiting.append(self._reading)
            self.pause_reading()

    def on_url(self, url: bytes) -> None:
        if self._reading is not None:
            self._reading.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._reading
        if request is None or request.head_complete:  # closing, or a trailer
            return
        name = name.lower()
        headers = request.headers
        if name in headers:
            if name in (b"host", b"authorization", b"content-length", b"x-amz-date"):
                raise MalformedHttpRequestException(f"The header {name.decode()} must not be repeated.")
            value = headers[name] + b"," + value
        headers[name] = value
        if len(headers) > self._settings.max_headers:
            raise MalformedHttpRequestException(
                f"The request has more than {self._settings.max_headers} headers."
            )

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        request.head_complete = True
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        if self._parser.get_http_version() == "1.1" and b"host" not in request.headers:
            raise MalformedHttpRequestException("The header Host is required.")
        if self._head_bytes > self._settings.max_header_bytes:
            self._check_head_size(request)
        self._head_bytes = 0
        expect = request.headers.get(b"expect")
        request.expects_continue = expect is not None and expect.lower() == b"100-continue"
        if self._active is None:
            self._begin(request)

    def on_body(self, chunk: bytes) -> None:
        request = self._reading
        if request is None:
            return
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
        if request is self._active:
            self.deadline = math.inf
            self._end(request)

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
        if not request.head_complete:
            return  # it is still being read, and begins when its head is complete
        self._begin(request)
        for chunk in request.parked:
            try:
                request.call.data(chunk)
            except Exception as error:
                self._refuse(request, error)
        request.parked.clear()
        if request.body_complete:
            self._end(request)

    def _refuse(self, request: Request, error: BaseException) -> None:
        """Handling the request raised: an error for the client, or a bug of ours."""
        call, request.call = request.call, _DONE
        call.cancel()
        refusal = _service_error(error)
        remaining = 0 if request.body_complete else request.content_length
        if request.body_complete or remaining is None or remaining > _SMALL or request.expects_continue:
            self.fail(request, refusal)
        else:
            request.call = _Refused(request, refusal)

    def _check_head_size(self, request: Request) -> None:
        """The count of bytes may include body or further requests: measure the head itself."""
        size = len(request.target) + sum(len(n) + len(v) + 4 for n, v in request.headers.items())
        if size > self._settings.max_header_bytes:
            raise MalformedHttpRequestException(
                f"The request's head exceeds {self._settings.max_header_bytes} bytes."
            )

    # --- replies --------------------------------------------------------------------------------------

    def send_reply(self, request: Request, status: int, lines: bytes, body: bytes) -> None:
        if request.replied:
            return
        head = b"%b%bx-amzn-RequestId: %b\r\n%bContent-Length: %d\r\n%b\r\n" % (
            http.status_line(status),
            self._date(),
            request.request_id,
            lines,
            len(body),
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
            b"%b%bx-amzn-RequestId: %b\r\n%b%b\r\n"
            % (
                http.status_line(status),
                self._date(),
                request.request_id,
                lines,
                b"" if self._will_keep_alive(request) else b"Connection: close\r\n",
            )
        )

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def finish(self, request: Request) -> None:
        """The reply is complete: on to the next request, or to the end of the connection."""
        request.replied = True
        request.call = _DONE
        self._active = None
        if not request.body_complete:
            self._closing = True
            self.deadline = self._loop.time() + LINGER_SECONDS
            self.resume_reading()
        elif not self._will_keep_alive(request):
            self._closing = True
            self.deadline = self._loop.time() + self._settings.body_timeout_seconds
            self._transport.close()
        elif self._waiting:
            # Not from within the call that has just replied: a client could nest us arbitrarily deep.
            self._active = request
            self._loop.call_soon(self._next, request)
        else:
            self.deadline = self._idle_deadline()
            self.resume_reading()

    def _next(self, finished: Request) -> None:
        if self._active is finished and not self._closing:
            self._active = None
            self._begin_waiting()
            self.resume_reading()

    def fail(self, request: Request, error: ServiceError) -> None:
        if request.reply_begun:
            self.abort()
        else:
            self.send_reply(request, *self._front.render_error(request, error))

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self._waiting and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    # --- the end --------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = math.inf
        reading = self._reading
        if self._closing or (reading is None and self._active is not None):
            self._transport.abort()  # lingered long enough, or the client does not read its reply
        elif reading is None:
            self._transport.close()  # idle
        else:
            part = "body" if reading.head_complete else "head"
            self._answer_reading(RequestTimeoutException(f"The request's {part} did not arrive in time."))

    def drain(self) -> None:
        """Close now if idle, else after the requests that have arrived."""
        if self._active is None and self._reading is None:
            self._transport.close()
        for request in (self._active, self._reading, *self._waiting):
            if request is not None:
                request.keep_alive = False

    def _will_keep_alive(self, request: Request) -> bool:
        return request.keep_alive and request.body_complete and not self._closing

    def _idle_deadline(self) -> float:
        return self._loop.time() + self._settings.idle_timeout_seconds

    def _malformed(self, message: str) -> None:
        self._answer_reading(MalformedHttpRequestException(message))

    def _answer_reading(self, error: ServiceError) -> None:
        """Answer the request that is being read with an error, and read no further ones."""
        request = self._reading or Request(self)
        if self._active not in (None, request):
            # A bad request pipelined behind a good one: the good one is answered, then the connection ends.
            self._closing = True
            self._reading = None
            self._waiting.clear()
        else:
            call, request.call = request.call, _DONE
            call.cancel()
            self._active = request
            self.fail(request, error)


def _service_error(error: BaseException) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    logger.error("internal failure", exc_info=error)
    return InternalFailure("An internal failure occurred. The server's log has the details.")
