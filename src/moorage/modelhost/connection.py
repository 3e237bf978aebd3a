"""A client's connection in the worker that serves it: bytes in, whole requests out.

llhttp (through httptools) turns bytes into calls of the `on_` methods. What cannot be served is a request too, with
a refusal, so that what was asked before it is answered before it; nothing is read behind it. A request whose head is
that of the one before it, to the byte, is not parsed anew.
"""

import select
import socket
from collections import deque
from functools import lru_cache
from time import monotonic

import httptools

from moorage.modelhost import http
from moorage.modelhost.cancellation import Cancellation

# Of one read. A head that is larger than what may be is never whole after it.
_READ_BYTES = http.MAX_HEAD_BYTES

# No signal, whatever user code makes of SIGPIPE. Numbers, since the operators of enumerations are slow.
_AT_ONCE = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

_FRAMING = ("content-length", "transfer-encoding")
_OURS = frozenset({"connection", "expect", *_FRAMING})


class Request:
    """Header names are lower case, and only those are there that user code may see."""

    __slots__ = ("body", "close", "headers", "method", "old", "refusal", "url")

    def __init__(self) -> None:
        self.method = b""
        self.url = b""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.close = False
        """Whether the connection ends with its reply."""
        self.old = False
        """Whether it came by HTTP/1.0, which has no chunks."""
        self.refusal: tuple[int, str] | None = None

    def again(self, body: bytes) -> "Request":
        """The same head with another body. Only for requests that do not end their connection."""
        request = Request()
        request.method = self.method
        request.url = self.url
        request.headers = self.headers
        request.body = body
        return request


class Connection:
    __slots__ = (
        "_again",
        "_head_bytes",
        "_headers_complete",
        "_last",
        "_last_head",
        "_last_size",
        "_length",
        "_max_request_bytes",
        "_named",
        "_parser",
        "_parts",
        "_reading",
        "closing",
        "expecting",
        "fd",
        "gone",
        "has_turn",
        "requests",
        "running",
        "slot",
        "slow",
        "sock",
        "unsent",
        "unused",
    )

    def __init__(self, sock: socket.socket, slot: int, *, max_request_bytes: int | None) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.slot = slot
        self.has_turn = True
        """Whether the front lets it be served now."""
        self.gone = False
        """Whether the client has hung up. The watching thread sets it, and reads the next one after that."""
        self.running: Cancellation | None = None
        """Of the invocation that runs now."""
        self.requests: deque[Request] = deque()
        """Complete, in the order of their replies."""
        self.closing = False
        """Whether the last of the requests is the last of the connection."""
        self.expecting = False
        """Whether the client waits for a word before it sends the body."""
        self.unused = False
        """Whether nothing has come since somebody looked whether there is anything."""
        self.slow = False
        """Whether its client has once been so slow to read that others were served meanwhile."""
        self.unsent: deque[memoryview] = deque()
        """What could not be sent yet, because the client does not read."""
        self._max_request_bytes = max_request_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Request | None = None
        self._headers_complete = False
        self._again = b""  # a head to be read once more
        self._last = Request()
        self._last_head = b""
        self._last_size = 0
        self._named: dict[str, str] = {}  # headers that are for us
        self._parts: list[bytes] = []
        self._length = 0
        self._head_bytes = 0  # of a head that has not come in one piece

    @property
    def is_half_received(self) -> bool:
        return self._reading is not None

    @property
    def is_pending(self) -> bool:
        """Whether there is anything to be done before it may be closed."""
        return self._reading is not None or bool(self.requests) or bool(self.unsent)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Sends what the client takes now, and keeps the rest. OSError when there is no client any more."""
        if self.unsent:
            self.unsent.append(memoryview(data))
            return
        try:
            sent = self.sock.send(data, flags | _AT_ONCE)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.unsent.append(memoryview(data)[sent:])

    def send_on(self) -> None:
        """Sends of the rest what the client takes now. OSError as `send`."""
        unsent = self.unsent
        while unsent:
            first = unsent[0]
            try:
                sent = self.sock.send(first, _AT_ONCE)
            except BlockingIOError:
                return
            if sent < len(first):
                unsent[0] = first[sent:]
            else:
                unsent.popleft()

    def wait_until_sent(self, seconds: float | None) -> None:
        """Returns when the rest has been sent, or after so many seconds. OSError as `send`."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        until = None if seconds is None else monotonic() + seconds
        while self.unsent:
            left = None if until is None else max(0.0, until - monotonic()) * 1000.0
            if not poll.poll(left):
                return
            self.send_on()

    def receive(self) -> bool:
        """Reads what has come, once. False when nothing more will come."""
        try:
            data = self.sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.unused = False
        if data:
            self.feed(data)
        return bool(data)

    def feed(self, data: bytes) -> None:
        if self._head_bytes:
            end = data.find(b"\r\n\r\n")
            if self._head_bytes + (end if end >= 0 else len(data)) > http.MAX_HEAD_BYTES:
                self._refuse(431, http.TOO_LARGE_A_HEAD)
                return
        between_requests = self._reading is None
        if between_requests and len(data) == self._last_size and data.startswith(self._last_head):
            self.requests.append(self._last.again(data[len(self._last_head) :]))
            return
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # Nobody here speaks anything else, so the client goes on with HTTP.
                self._parser = httptools.HttpRequestParser(self)
                data = self._again + data[upgrade.args[0] :]
                self._again = b""
                between_requests = False
            except httptools.HttpParserError as error:
                if not self.closing:
                    self._refuse(400, http.malformed(error))
                return
            if self.closing:
                return
        if self._reading is None:
            self._head_bytes = 0
            if between_requests:
                self._remember(data)
        elif self._headers_complete:
            self._head_bytes = 0
        else:
            self._head_bytes += self._begun(data)
            if self._head_bytes >= http.MAX_HEAD_BYTES:
                self._refuse(431, http.TOO_LARGE_A_HEAD)

    def _begun(self, data: bytes) -> int:
        """How much of a read belongs to the head that it ends in; other requests may be before that."""
        if not self.requests:
            return len(data)
        behind = len(data) - (data.rfind(b"\r\n\r\n") + 4) - len(self.requests[-1].body)
        return max(1, behind)

    def _remember(self, data: bytes) -> None:
        """What one read has brought, if that is one request: clients repeat their heads to the byte."""
        if len(self.requests) == 1 and not self.closing:
            request = self.requests[0]
            size = data.find(b"\r\n\r\n") + 4
            if len(data) == size + len(request.body):  # else it came in several reads, or in chunks
                self._last, self._last_head, self._last_size = request.again(b""), data[:size], len(data)

    def forget_parser(self) -> None:
        """It holds our methods: without it nothing of us is left when the last reference is gone."""
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._reading = Request()
        self._headers_complete = False

    def on_url(self, part: bytes) -> None:
        assert self._reading is not None
        self._reading.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        known = _known(name)
        if known is None or self._headers_complete:  # a trailer
            return
        assert self._reading is not None
        headers = self._named if known in _OURS else self._reading.headers
        headers[known] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headers_complete = True
        request = self._reading
        assert request is not None
        request.method = self._parser.get_method()
        named = self._named
        if "connection" in named:
            # A reply of HTTP/1.0 ends with its connection, whatever else it says.
            request.old = self._parser.get_http_version() == "1.0"
            if self._parser.should_upgrade():
                self._again = self._without_upgrade(request)
        if named:
            self._expect(named)
            named.clear()

    def on_body(self, part: bytes) -> None:
        self.expecting = False
        self._parts.append(part)
        self._length += len(part)
        self._check_length(self._length)

    def on_message_complete(self) -> None:
        request = self._reading
        assert request is not None
        if self._again:
            return
        parts = self._parts
        if parts:
            request.body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._parts = []
            self._length = 0
        if not self._parser.should_keep_alive() or request.old:
            request.close = self.closing = True
            request.old = self._parser.get_http_version() == "1.0"
        self.expecting = False
        self._reading = None
        self.requests.append(request)

    def _without_upgrade(self, request: Request) -> bytes:
        """The same head once more: the parser takes what follows an upgrade for anything but its body."""
        connection = "close" if "close" in self._named["connection"].lower() else "keep-alive"
        framing = {name: self._named[name] for name in _FRAMING if name in self._named}
        headers = request.headers | framing | {"connection": connection}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, request.url, lines.encode("latin-1"))

    def _expect(self, named: dict[str, str]) -> None:
        if self._max_request_bytes is not None:
            self._check_length(int(named.get("content-length", "0")))
        if named.get("expect", "").lower() == "100-continue":
            self.expecting = self._parser.get_http_version() != "1.0"

    def _check_length(self, length: int) -> None:
        limit = self._max_request_bytes
        if limit is not None and length > limit:
            self._refuse(413, f"The body is larger than {limit} bytes (SAGEMAKER_MAX_REQUEST_SIZE).\n")
            raise _Refused

    def _refuse(self, status: int, sentence: str) -> None:
        request = Request()
        request.refusal = (status, sentence)
        request.close = self.closing = True
        self.expecting = False
        self._reading = None
        self._parts.clear()
        self.requests.append(request)


class _Refused(Exception):
    """Stops the parser."""


@lru_cache(maxsize=256)
def _known(name: bytes) -> str | None:
    """The lower case name of a header that somebody here reads: what the platform promises to pass on to user code,
    and nothing of the connection."""
    text = name.decode("latin-1").lower()
    return text if text in _OURS or text in ("accept", "content-type") or text.startswith("x-amzn-") else None
