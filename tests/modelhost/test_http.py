"""Bytes to requests: each of them whole, byte by byte, and with more behind it."""

import socket
from collections.abc import Iterator

import pytest

from moorage.modelhost import http
from moorage.modelhost.connection import Connection, Request

from .raw import PING, invocation

CHUNKED = (
    b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Amzn-A: 1\r\n\r\n"
    b"1\r\n[\r\n2\r\n1]\r\n0\r\nX-Amzn-A: trailer\r\n\r\n"
)
UPGRADE = invocation("[1]", "X-Amzn-A: 1", "Connection: Upgrade", "Upgrade: h2c")


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.socket() as sock:
        yield Connection(sock, 0, max_request_bytes=100)


def bodies(requests: list[Request]) -> list[bytes]:
    return [request.body for request in requests]


@pytest.mark.parametrize("data", [invocation("[1]", "X-Amzn-A: 1"), CHUNKED, UPGRADE])
@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_a_request_in_pieces(connection: Connection, data: bytes, step: int) -> None:
    twice = data * 2
    for start in range(0, len(twice), step):
        connection.feed(twice[start : start + step])
    assert not connection.is_half_received
    assert not connection.closing
    assert bodies(list(connection.requests)) == [b"[1]", b"[1]"]
    for request in connection.requests:
        assert (request.method, request.url, request.close) == (b"POST", b"/invocations", False)
        assert request.headers.pop("content-type", "application/json") == "application/json"
        assert request.headers == {"x-amzn-a": "1"}


def test_a_head_like_the_last_one_goes_with_another_body(connection: Connection) -> None:
    sent = [invocation(body, "X-Amzn-A: 1") for body in ("[1]", "[2]", "[33]", "[44]")]
    found: list[Request] = []
    for data in (*sent, sent[0][:-1], sent[0][-1:], sent[1] + sent[2], sent[2]):
        connection.feed(data)
        found += connection.requests
        connection.requests.clear()
    assert bodies(found) == [b"[1]", b"[2]", b"[33]", b"[44]", b"[1]", b"[2]", b"[33]", b"[33]"]
    assert all(request.headers["x-amzn-a"] == "1" for request in found)


def test_a_body_like_the_last_request_is_a_body(connection: Connection) -> None:
    connection.feed(PING)
    connection.requests.clear()
    connection.feed(invocation(PING)[: -len(PING)])
    connection.feed(PING)
    assert bodies(list(connection.requests)) == [PING]


def test_the_start_of_the_next_request_is_half_received(connection: Connection) -> None:
    connection.feed(PING + b"P")
    assert len(connection.requests) == 1
    assert connection.is_half_received


def test_user_code_sees_only_what_the_platform_promises(connection: Connection) -> None:
    connection.feed(invocation("", "Authorization: secret", "Accept: text/csv", "X-AMZN-SageMaker-Target: t"))
    assert connection.requests[0].headers == {
        "content-type": "application/json",
        "accept": "text/csv",
        "x-amzn-sagemaker-target": "t",
    }


@pytest.mark.parametrize(
    ("lines", "version", "close"),
    [
        ((), "1.1", False),
        (("Connection: close",), "1.1", True),
        ((), "1.0", True),
        (("Connection: keep-alive",), "1.0", True),
    ],
)
def test_which_requests_end_the_connection(
    connection: Connection, lines: tuple[str, ...], version: str, close: bool
) -> None:
    connection.feed(invocation("[1]", *lines, version=version))
    request = connection.requests[0]
    assert (request.close, request.old) == (close, version == "1.0")


def test_nothing_is_read_behind_a_request_that_ends_the_connection(connection: Connection) -> None:
    connection.feed(invocation("[1]", "Connection: close") + invocation("[2]"))
    assert bodies(list(connection.requests)) == [b"[1]"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no HTTP\r\n\r\n", 400),
        (invocation("x" * 101), 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 2 * http.MAX_HEAD_BYTES, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_a_refusal_waits_for_its_turn(connection: Connection, data: bytes, status: int) -> None:
    connection.feed(PING)
    connection.feed(data)
    first, refused = connection.requests
    assert first.refusal is None
    assert refused.refusal is not None
    assert refused.refusal[0] == status
    assert refused.close


@pytest.mark.parametrize("size", [http.MAX_HEAD_BYTES - 100, http.MAX_HEAD_BYTES + 100])
def test_a_head_is_measured_whatever_it_comes_in(connection: Connection, size: int) -> None:
    data = b"GET / HTTP/1.1\r\nA: " + b"x" * (size - 23) + b"\r\n\r\n" + PING
    for start in range(0, len(data), 1000):
        if not connection.closing:
            connection.feed(data[start : start + 1000])
    refused = connection.requests[0].refusal is not None
    assert refused is (size > http.MAX_HEAD_BYTES)


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        (b"POST", b"/invocations", True),
        (b"POST", b"/invocations?a=1", True),
        (b"POST", b"/%69nvocations", True),
        (b"POST", b"http://host:8080/invocations", True),
        (b"GET", b"/invocations", False),
        (b"POST", b"/invocations/", False),
        (b"POST", b"*", False),
    ],
)
def test_what_is_an_invocation(method: bytes, url: bytes, expected: bool) -> None:
    assert http.is_invocation(method, url) is expected
