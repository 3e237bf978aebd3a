"""A request and its reply, as the connection and the front know them.

The connection collects a `Request` and hands it to the `Front`, which names the `Call` that gets its body; whoever
answers does so through the request's own methods, and never sees the connection.
"""

from typing import TYPE_CHECKING, Protocol

from moorage.errors import ServiceError
from moorage.heads import KnownHead
from moorage.wire.invocation import Invocation

if TYPE_CHECKING:
    from moorage.gateway.client_connection import ClientConnection


class Call:
    """What the front does with one request. By itself, as of one that has been answered, it drops what arrives."""

    __slots__ = ()

    def data(self, chunk: bytes) -> None:
        """Some bytes of the body. May raise `ServiceError`."""

    def end(self) -> None:
        """The body is complete. May raise `ServiceError`."""

    def unverified_body(self) -> tuple[str, int]:
        """The access key id that the request claims, and how many bytes of its body are kept before its signature is
        verified. Asked once, of a body that is not small and does not come with its head. May raise `ServiceError`,
        since what can be verified without the body is verified here."""
        return "", 0

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


DONE = Call()


class KnownRequest:
    """What the requests with one `KnownHead` have in common."""

    __slots__ = ("head", "invocation", "method", "target")

    def __init__(self, head: KnownHead, request: "Request") -> None:
        self.head = head
        self.method = request.method
        self.target = request.target
        self.invocation: Invocation | None = None
        """What they ask for, once one of them has been found to be valid. It does not depend on what varies."""


class Refused(Call):
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
        "known",
        "method",
        "parked",
        "received_at",
        "refusal",
        "replied",
        "reply_begun",
        "request_id",
        "target",
        "understands_chunks",
    )

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self.known: KnownRequest | None = None
        """If its head is like one before."""
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.request_id = next(connection.request_ids)
        self.call: Call = DONE
        self.keep_alive = True
        self.expects_continue = False
        self.head_complete = False
        self.body_complete = False
        self.received_at = 0.0  # its last byte, by `time.monotonic`; once it is this request's turn
        self.understands_chunks = True  # HTTP/1.0 does not
        self.parked: list[bytes] = []
        self.refusal: ServiceError | None = None
        self.reply_begun = False
        self.replied = False

    @property
    def content_length(self) -> int | None:
        """The declared length of the body in bytes; None when it comes in chunks."""
        if b"transfer-encoding" in self.headers:
            return None
        digits = self.headers.get(b"content-length", b"0")
        # int() refuses thousands of digits, though they be zeros.
        return int(digits) if len(digits) < 20 else int(digits.lstrip(b"0") or b"0")

    @property
    def secure(self) -> bool:
        """Whether it came by TLS."""
        return self._connection.secure

    @property
    def protected(self) -> bool:
        """Whether nobody on its way could read it: it came by TLS, or did not leave the machine, being of a process
        of the server's own or of a container."""
        return self._connection.secure or self._connection.internal

    @property
    def limited(self) -> bool:
        """Whether it counts among what its key may ask."""
        return self._connection.limited

    @property
    def client_address(self) -> str:
        """The IP address it came from."""
        return self._connection.client_address

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole reply. `lines` are header lines, each ended by CRLF; the length is added."""
        self._connection.send_reply(self, status, lines, body)

    def begin_reply(self, status: int, lines: bytes) -> None:
        """Send the head of a reply whose body follows by `write`; `lines` say how it is framed."""
        self._connection.send_head(self, status, lines)

    def write(self, data: bytes | bytearray) -> None:
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
        self._connection.hold_body(held=True)

    def resume_reading(self) -> None:
        self._connection.hold_body(held=False)
