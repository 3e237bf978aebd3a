"""HTTP/1.1 as both sides of the host speak it: which requests are whose, and what reply heads look like."""

import contextlib
import re
from functools import lru_cache
from http import HTTPStatus

import httptools

MAX_HEAD_BYTES = 64 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TEXT = "text/plain; charset=utf-8"
INTERRUPTED = "x-moorage-invocation: interrupted\r\n"
NOT_STARTED = "x-moorage-invocation: not-started\r\n"
"""Header lines of an error reply that the host itself makes: the worker ended inside the invocation, or no worker has
begun it. The platform runs such an asynchronous invocation again; without the header an error reply is final."""

_UNSENDABLE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def is_invocation(method: bytes, url: bytes) -> bool:
    return method == b"POST" and (url == b"/invocations" or path_of(url) == "/invocations")


@lru_cache(maxsize=256)
def path_of(url: bytes) -> str:
    """Without the query, and with its escapes resolved."""
    try:
        path = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        path = url
    return _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), path).decode(errors="replace")


@lru_cache(maxsize=256)
def opening(status: int, content_type: str) -> bytes:
    """The first lines of a reply head. ValueError when that is no content type that it could carry."""
    phrase = _PHRASES.get(status, "")
    return f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {sendable(content_type)}\r\n".encode("latin-1")


def sendable(value: str) -> str:
    """The value, if an HTTP header can carry it."""
    if _UNSENDABLE.search(value):
        raise ValueError(
            f"a response header cannot carry {value!r}: it has control or non-Latin-1 characters"
        )
    return value


def text(status: int, sentence: str, *, close: bool, headers: str = "", head_only: bool = False) -> bytes:
    """A whole reply of ours. `headers` are whole lines."""
    body = sentence.encode(errors="replace")
    lines = f"content-length: {len(body)}\r\n{headers}" + ("connection: close\r\n" if close else "")
    return b"%b%b\r\n%b" % (opening(status, TEXT), lines.encode(), b"" if head_only else body)


def other(method: bytes, url: bytes, *, trouble: str | None, close: bool) -> bytes:
    """The reply to what is no invocation. `trouble` is why none could be served."""
    head_only = method == b"HEAD"
    path = path_of(url)
    if path == "/ping" and (head_only or method == b"GET"):
        status, sentence = (503, f"Not ready: {trouble}\n") if trouble else (200, "")
        return text(status, sentence, close=close, head_only=head_only)
    allowed = {"/ping": "GET, HEAD", "/invocations": "POST"}.get(path)
    if allowed is None:
        sentence = "This container answers GET /ping and POST /invocations.\n"
        return text(404, sentence, close=close, head_only=head_only)
    sentence = f"{path} answers {allowed.partition(',')[0]}.\n"
    return text(405, sentence, close=close, headers=f"allow: {allowed}\r\n", head_only=head_only)


def malformed(error: httptools.HttpParserError) -> str:
    return f"The request is not valid HTTP/1.1: {error}.\n"


TOO_LARGE_A_HEAD = f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.\n"


class Head:
    """The head of one request, parsed from all of it that has come, and thrown away."""

    def __init__(self, data: bytes) -> None:
        """Raises HttpParserError. `data` is not to go on behind the head."""
        self.url = b""
        self.complete = False
        self.has_body = False
        self.method = b""
        self.keep_alive = False
        self._parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):  # nobody here speaks anything else
            self._parser.feed_data(data)

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self.has_body = value.strip() != b"0"
            case b"transfer-encoding":
                self.has_body = True

    def on_headers_complete(self) -> None:
        self.complete = True
        self.method = self._parser.get_method()
        self.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
