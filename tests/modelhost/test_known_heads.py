"""A request whose head is the one before it, to the byte, is not parsed anew, and is the same request."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moorage.modelhost.connection import Connection, Request

HEAD = b"POST /invocations HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: 3\r\n\r\n"
BODIES = (b"1,2", b"3,4", b"\r\n\r")
OTHERS = (
    b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
    b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\na",
    b"\r\n",
)


@pytest.fixture(scope="module")
def sock() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def fed(connection: Connection, data: bytes) -> list[tuple[object, ...]]:
    """What the worker takes of it, all at once: it reads on when it has answered what there is."""
    if connection.closing:
        return []
    connection.feed(data)
    requests = [_content(request) for request in connection.requests]
    connection.requests.clear()
    return requests


def _content(request: Request) -> tuple[object, ...]:
    return tuple(getattr(request, name) for name in Request.__slots__)


@st.composite
def reads(draw: st.DrawFn) -> list[bytes]:
    """Requests, some of them in two reads cut anywhere, and some of the reads again where they do not belong."""
    whole = st.sampled_from([HEAD + body for body in BODIES] + list(OTHERS))
    found: list[bytes] = []
    for message in draw(st.lists(whole, max_size=6)):
        at = draw(st.just(0) | st.integers(0, len(message)))
        found += [piece for piece in (message[:at], message[at:]) if piece]
        found += draw(st.lists(st.sampled_from(found), max_size=1))
    return found


@given(reads())
@example([HEAD[:30], HEAD[30:] + b"1,2", HEAD[30:] + b"3,4"])
def test_nothing_is_read_otherwise_than_by_the_parser(sock: socket.socket, reads: list[bytes]) -> None:
    connection, forgetful = (Connection(sock, slot, max_request_bytes=None) for slot in (0, 1))
    for data in reads:
        forgetful._last_size = 0
        assert fed(connection, data) == fed(forgetful, data)


def test_the_head_of_the_request_before_serves_the_next(sock: socket.socket) -> None:
    connection = Connection(sock, 0, max_request_bytes=None)
    fed(connection, HEAD + b"1,2")
    connection.forget_parser()
    connection.feed(HEAD + b"3,4")
    (request,) = connection.requests
    assert (request.url, request.headers, request.body) == (
        b"/invocations",
        {"content-type": "text/csv"},
        b"3,4",
    )
