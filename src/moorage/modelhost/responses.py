"""Response objects that user code returns: flask's, werkzeug's, starlette's, and that of the shims."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple


class Response(NamedTuple):
    status: int
    body: bytes | Iterator[Any] | AsyncIterator[Any]
    """A whole one, or the parts of a stream."""
    content_type: str
    headers: Mapping[str, str]
    """All of them."""


def read(result: Any) -> Response | None:
    """None for what is no response."""
    status = getattr(result, "status_code", None)
    headers = getattr(result, "headers", None)
    if not isinstance(status, int) or headers is None:
        return None
    body = _body(result)
    if isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    if not isinstance(body, (bytes, Iterator, AsyncIterator)):
        return None
    named = {str(name).lower(): str(value) for name, value in headers.items()}
    return Response(status, body, named.get("content-type", "application/json"), named)


def _body(result: Any) -> Any:
    if getattr(result, "is_streamed", False):  # flask's and werkzeug's
        return result.iter_encoded()
    get_data = getattr(result, "get_data", None)
    if callable(get_data):
        return get_data()
    return getattr(result, "body_iterator", None) or getattr(result, "body", None)  # starlette's
