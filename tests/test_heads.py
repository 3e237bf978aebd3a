"""Heads that are known are read as llhttp reads them, or not at all."""

from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moorage.heads import KnownHead, learn

SIGNATURE = b"0123456789abcdef" * 4
CREDENTIAL = b"AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/sagemaker/aws4_request"
REQUEST = (
    b"POST /endpoints/demo/invocations HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Content-Type: application/json\r\n"
    b"User-Agent: Boto3/1.44\r\n"
    b"X-Amz-Date: 20261121T120000Z\r\n"
    b"Authorization: " + CREDENTIAL + b", SignedHeaders=host, Signature=" + SIGNATURE + b"\r\n"
    b"amz-sdk-invocation-id: 2b1c8cb5-07b1-4ac5-9f3a-7a3b1c5f0a11\r\n"
    b"Content-Length: 2\r\n"
    b"\r\n"
    b"[]"
)


@dataclass
class Parsed:
    """What llhttp makes of some bytes, as the gateway's connection keeps it."""

    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    messages: int = 0
    begun: int = 0
    repeated: bool = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.repeated = self.repeated or name.lower() in self.headers
        self.headers[name.lower()] = value.rstrip()

    def on_body(self, chunk: bytes) -> None:
        self.body += chunk

    def on_message_complete(self) -> None:
        self.messages += 1


def parsed(message: bytes) -> Parsed | None:
    """None if it is not exactly one request or reply."""
    found = Parsed()
    parser = httptools.HttpResponseParser if message.startswith(b"HTTP/") else httptools.HttpRequestParser
    try:
        parser(found).feed_data(message)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return found if found.messages == found.begun == 1 and not found.repeated else None


def known(message: bytes) -> KnownHead | None:
    first = parsed(message)
    assert first is not None
    return learn(message, first.headers)


def changed(old: bytes, new: bytes) -> bytes:
    assert old in REQUEST
    return REQUEST.replace(old, new)


@pytest.mark.parametrize(
    "message",
    [
        REQUEST,
        changed(b"20261121T120000Z", b"20261122T000000Z"),
        changed(SIGNATURE, SIGNATURE[::-1]),
        changed(b"2b1c8cb5", b"00000000"),
        changed(b"Content-Length: 2\r\n\r\n[]", b"Content-Length: 12\r\n\r\n[1, 2, 3, 4]"),
    ],
)
def test_what_varies_is_read(message: bytes) -> None:
    head, as_parsed = known(REQUEST), parsed(message)
    assert head is not None and as_parsed is not None
    assert head.read(message) == as_parsed.headers
    assert message[head.body_at :] == as_parsed.body
    assert head.read(REQUEST) is not None, "the next one may be as long as the first"


@pytest.mark.parametrize(
    "message",
    [
        changed(b"/demo/", b"/other/"),
        changed(b"POST", b"PUT"),
        changed(b"HTTP/1.1", b"HTTP/1.0"),
        changed(b"application/json", b"text/csv"),
        changed(b"Content-Type", b"content-type"),
        changed(b"Host: 127.0.0.1:8080\r\n", b""),
        changed(b"us-east-1", b"eu-west-1"),
        changed(b"120000Z", b"120000Z\r\nTransfer-Encoding: chunked"),
        changed(b"120000Z", b"120000Z\nTransfer-Encoding: chunked"),
        changed(b"120000Z", b"120000Z\rTransfer-Encoding: chunked"),
        changed(b"120000Z", b"120000Z\r\n folded"),
        changed(b"120000Z", b"120000Z\0"),
        changed(b"120000Z", b"120000Z\x80"),
        changed(b"120000Z", b"120000Z "),
        changed(b" 20261121T120000Z", b"  20261121T120000Z"),
        changed(b"20261121T120000Z", b""),
        changed(b"Length: 2", b"Length: 02"),
        changed(b"Length: 2", b"Length: +2"),
        changed(b"Length: 2", b"Length: 1"),
        changed(b"Length: 2", b"Length: 3"),
        changed(b"Length: 2", b"Length: 2, 2"),
        changed(b"Length: 2\r\n", b"Length: 2\r\nContent-Length: 2\r\n"),
        REQUEST + REQUEST,
        REQUEST[:-1],
        REQUEST[:-40],
        b"",
        b"\r\n" + REQUEST,
    ],
)
def test_all_else_is_left_to_llhttp(message: bytes) -> None:
    head = known(REQUEST)
    assert head is not None
    assert head.read(message) is None


@pytest.mark.parametrize(
    "message",
    [
        changed(b"Host:", b"Expect: 100-continue\r\nHost:"),
        changed(b"Host:", b"Upgrade: h2c\r\nHost:"),
        changed(b"Content-Length: 2\r\n\r\n[]", b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"),
        changed(b"Boto3/1.44", b"Boto3/\x80"),
        changed(b"Boto3/1.44", b"Boto3/" + b"1" * 4096),
        changed(b"Length: 2\r\n\r\n[]", b"Length: " + b"0" * 5000 + b"\r\n\r\n"),
        changed(b"User-Agent: Boto3/1.44", b"User-Agent:"),
        changed(b"User-Agent: ", b"User-Agent:"),
        changed(b"User-Agent: ", b"User-Agent:  "),
        b"GET /endpoints HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_not_learned(message: bytes) -> None:
    assert known(message) is None


@given(st.integers(0, len(REQUEST)), st.integers(0, 40), st.binary(max_size=40))
@example(REQUEST.index(b"20261121T"), 16, b"20261121T120000Z\r\nContent-Length: 0\r\n\r\n")
def test_no_change_is_read_otherwise_than_by_llhttp(at: int, size: int, inserted: bytes) -> None:
    head = known(REQUEST)
    assert head is not None
    message = REQUEST[:at] + inserted + REQUEST[at + size :]
    headers = head.read(message)
    if headers is not None:
        as_parsed = parsed(message)
        assert as_parsed is not None
        assert (headers, message[head.body_at :]) == (as_parsed.headers, as_parsed.body)
        assert as_parsed.target == b"/endpoints/demo/invocations"


NAMES = (
    b"date",
    b"content-length",
    b"x-amz-date",
    b"authorization",
    b"host",
    b"accept",
    b"te",
    b"Connection",
)
VALUES = st.binary(max_size=6) | st.sampled_from((b"0", b"1", b"2", b"close", b"a Signature=b", b"chunked"))


@given(
    st.sampled_from((b"POST / HTTP/1.1", b"HTTP/1.1 200 OK", b"HTTP/1.1 500 ", b"HTTP/1.0 200 OK")),
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6),
    st.lists(VALUES, max_size=6),
)
def test_whatever_is_learned_is_read_as_by_llhttp(
    first_line: bytes, lines: list[tuple[bytes, bytes]], others: list[bytes]
) -> None:
    def message(values: list[bytes]) -> bytes:
        head = b"".join(b"%b: %b\r\n" % (name, value) for (name, _), value in zip(lines, values, strict=True))
        return b"%b\r\n%bContent-Length: 2\r\n\r\n[]" % (first_line, head)

    own = [value for _, value in lines]
    first = parsed(message(own))
    head = None if first is None else learn(message(own), first.headers)
    if head is None:
        return
    again = message([*others, *own[len(others) :]][: len(own)])
    headers = head.read(again)
    if headers is not None:
        as_parsed = parsed(again)
        assert as_parsed is not None
        assert headers == as_parsed.headers
