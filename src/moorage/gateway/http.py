"""The parts of HTTP/1.1 that both sides of the gateway write: status lines, dates, request ids."""

import itertools
import random
import time
import uuid
from collections.abc import Iterator
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
_THREE_DIGITS = [b"%03x" % number for number in range(4096)]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 503 Too many connections\r\n"
    b"x-amzn-ErrorType: ServiceUnavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
"""Without a body: nothing was read, so it is not known whether the client expects JSON or XML, and every SDK takes a
503 that is empty for one to try again."""


class ReplyOpening:
    """What a reply with a status begins with: the status line and `Date`, rendered once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines: dict[int, bytes] = {}

    def __call__(self, status: int) -> bytes:
        now = time.time()
        if not 0 <= now - self._second < 1:
            self._second = int(now)
            self._lines.clear()
        lines = self._lines.get(status)
        if lines is None:
            date = formatdate(self._second, usegmt=True).encode()
            lines = self._lines[status] = b"%bDate: %b\r\n" % (_status_line(status), date)
        return lines


def request_ids() -> Iterator[bytes]:
    """Request ids in the form of a UUID: a random part for this process, then a count. Unique, and cheap."""
    prefix = str(uuid.uuid4())[:24].encode()
    for number in itertools.count(random.getrandbits(34)):
        most = b"%b%09x" % (prefix, number)
        for last in _THREE_DIGITS:
            yield most + last


def is_hop_by_hop(header: bytes) -> bool:
    """Whether a header belongs to one connection only (RFC 9110, 7.6.1)."""
    return header in _HOP_BY_HOP


def _status_line(status: int) -> bytes:
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d Status %d\r\n" % (status, status)
