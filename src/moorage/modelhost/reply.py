"""The reply to one invocation, as it goes to the client: a whole body, or a stream."""

import socket
from collections.abc import Mapping
from time import monotonic
from typing import Any, NoReturn

from moorage.modelhost import http
from moorage.modelhost.cancellation import ClientGone
from moorage.modelhost.connection import Connection
from moorage.modelhost.context import FORWARDED_HEADERS, Context
from moorage.modelhost.families.base import ErrorReply
from moorage.modelhost.shared import Shared, State
from moorage.modelhost.sockets import reset

_JOINED_BYTES = 64 * 1024  # what is larger is not copied to be sent together with its head
_MORE_FOLLOWS = int(socket.MSG_MORE)
_BODILESS = frozenset({204, 304})


class Reply:
    """What the client does not take is kept by its connection. After a part the client has `patience_seconds` to take
    it, during which the clock of the time limit stands; None is for ever. ClientGone when nobody reads.

    The head of a stream waits for its first part, so that an error before it is still a proper answer, and headers
    set until then count."""

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_content_type",
        "_context",
        "_old",
        "_patience_seconds",
        "_shared",
        "closes",
        "started",
    )

    def __init__(
        self,
        connection: Connection,
        shared: Shared,
        *,
        closes: bool,
        old: bool,
        patience_seconds: float | None = None,
    ) -> None:
        self.started = False
        self.closes = closes
        """Whether the connection ends with it. In the end also: whether it has to."""
        self._connection = connection
        self._shared = shared
        self._old = old
        self._patience_seconds = patience_seconds
        self._bodiless = False
        self._chunked = False
        self._content_type = http.TEXT
        self._context: Context | None = None

    def begin(self, content_type: str, context: Context | None) -> None:
        self._content_type = content_type
        self._context = context

    def whole(self, body: bytes, status: int = 200) -> None:
        status, head = self._head(status)
        if status in _BODILESS:
            body = b""
        else:
            head = b"%bcontent-length: %d\r\n" % (head, len(body))
        self.started = True
        slot = self._connection.slot
        self._shared.states[slot] = State.REPLYING
        if len(body) <= _JOINED_BYTES:
            self._send(b"%b\r\n%b" % (head, body))
        else:
            self._send(head + b"\r\n", _MORE_FOLLOWS)
            self._send(body)

    def part(self, part: Any) -> bool:
        """Whether the client has to read before there is any use in another part."""
        if isinstance(part, str):
            part = part.encode()
        elif not isinstance(part, bytes | bytearray | memoryview):
            raise TypeError(
                f"a stream is made of bytes or str, but a part of this one is a {type(part).__name__}"
            )
        opening = b"" if self.started else self._opening()
        if part and not self._bodiless:
            self._send_part(opening, bytes(part))
        elif opening:
            self._send(opening)
        if self._connection.unsent:
            self._wait()
        self._shared.busy_since[0] = monotonic()
        return bool(self._connection.unsent)

    def error(self, said: ErrorReply) -> None:
        self.begin(said.content_type, None)
        self.whole(said.body.encode(errors="replace"), said.status)

    def end(self) -> None:
        """Of a stream."""
        opening = b"" if self.started else self._opening()
        if ending := opening + (b"0\r\n\r\n" if self._chunked else b""):
            self._send(ending)

    def break_off(self) -> None:
        """The client shall see that the reply is not whole."""
        self.closes = True
        self._connection.unsent.clear()
        sock = self._connection.sock
        if self.started and not self._chunked:
            reset(sock)
            return
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is no connection any more

    def _opening(self) -> bytes:
        status, head = self._head(200)
        self.started = True
        self._bodiless = status in _BODILESS
        self._chunked = not self._old and not self._bodiless
        state = State.REPLYING_UNTIL_CLOSE if self._old else State.REPLYING
        self._shared.states[self._connection.slot] = state
        return head + (b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")

    def _head(self, status: int) -> tuple[int, bytes]:
        """Without its last line."""
        context = self._context
        if context is None or not context.has_replied:
            head = http.opening(status, self._content_type)
        else:
            status = context.get_response_status()[0]
            head = self._head_by(status, context.get_response_headers())
        return status, head + b"connection: close\r\n" if self.closes else head

    def _head_by(self, status: int, set_by_user: Mapping[str, str]) -> bytes:
        content_type = set_by_user.get("content-type", self._content_type)
        names = [name for name in set_by_user if name in FORWARDED_HEADERS]
        lines = "".join(f"{name}: {set_by_user[name]}\r\n" for name in names)
        return http.opening(status, content_type) + lines.encode("latin-1")

    def _send_part(self, opening: bytes, part: bytes) -> None:
        if not self._chunked:
            self._send(opening + part)
            return
        frame = b"%b%x\r\n" % (opening, len(part))
        if len(part) <= _JOINED_BYTES:
            self._send(b"%b%b\r\n" % (frame, part))
        else:
            self._send(frame, _MORE_FOLLOWS)
            self._send(part, _MORE_FOLLOWS)
            self._send(b"\r\n")

    def _send(self, data: bytes, flags: int = 0) -> None:
        try:
            self._connection.send(data, flags)
        except OSError:
            self._gone()

    def _wait(self) -> None:
        """A client that has kept others waiting once does not do so again."""
        connection = self._connection
        patience = 0.0 if connection.slow and self._patience_seconds is not None else self._patience_seconds
        self._shared.busy_since[0] = 0.0
        try:
            connection.wait_until_sent(patience)
        except OSError:
            self._shared.busy_since[0] = monotonic()  # user code may clean up now
            self._gone()
        connection.slow = connection.slow or bool(connection.unsent)

    def _gone(self) -> NoReturn:
        if self._connection.running is not None:
            self._connection.running.obey()
        raise ClientGone from None
