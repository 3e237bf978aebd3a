"""The parts of HTTP/1.1 that both sides of the gateway write: status lines, dates, request ids."""

import random
import time
import uuid
from email.utils import formatdate
from http import HTTPStatus

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d Status %d\r\n" % (status, status)


class DateLine:
    """The `Date` header's line, rendered once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def __call__(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._line = f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._line


class RequestIds:
    """Request ids in the form of a UUID: a random part for this process, then a count. Unique, and cheap."""

    def __init__(self) -> None:
        self._prefix = str(uuid.uuid4())[:24].encode()
        self._count = random.getrandbits(46)

    def __call__(self) -> bytes:
        self._count += 1
        return b"%b%012x" % (self._prefix, self._count)


def is_hop_by_hop(header: bytes) -> bool:
    """Whether a header belongs to one connection only (RFC 9110, 7.6.1)."""
    return header in _HOP_BY_HOP
