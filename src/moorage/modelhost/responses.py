"""Response objects that user code returns: flask's, werkzeug's, starlette's, and that of the shims."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Response(NamedTuple):
    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]
    """All of them."""


def read(result: Any) -> Response | None:
    """None for what is no response."""
    status = getattr(result, "status_code", None)
    headers = getattr(result, "headers", None)
    if not isinstance(status, int) or headers is None:
        return None
    get_data = getattr(result, "get_data", None)
    body = get_data() if callable(get_data) else getattr(result, "body", None)
    if not isinstance(body, (bytes, bytearray, memoryview)):
        return None
    named = {str(name).lower(): str(value) for name, value in headers.items()}
    return Response(status, bytes(body), named.get("content-type", "application/json"), named)
