"""What scripts return: flask's response where flask is installed, else one of our own with its usual members."""

from collections.abc import Mapping
from typing import Any

from sagemaker_containers.beta.framework import content_types


class _OwnResponse:
    def __init__(
        self,
        response: Any = None,
        status: int | str = 200,
        headers: Mapping[str, str] | None = None,
        mimetype: str | None = None,
    ) -> None:
        self.status_code = int(str(status).split()[0])
        self.headers = dict(headers or {})
        self.mimetype = mimetype or content_types.JSON
        self.headers.setdefault("Content-Type", _with_charset(self.mimetype))
        self.data = b""
        self.set_data(b"" if response is None else response)

    @property
    def status(self) -> str:
        return str(self.status_code)

    @property
    def content_type(self) -> str:
        return self.headers["Content-Type"]

    @property
    def response(self) -> list[bytes]:
        return [self.data]

    def set_data(self, value: Any) -> None:
        parts = [value] if isinstance(value, (str, bytes, bytearray)) else list(value)
        self.data = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in parts)

    def get_data(self, as_text: bool = False) -> Any:
        return self.data.decode() if as_text else self.data


def _with_charset(mimetype: str) -> str:
    return f"{mimetype}; charset=utf-8" if mimetype.startswith("text/") else mimetype


try:
    from flask import Response as _Response
except ModuleNotFoundError:
    _Response = _OwnResponse


class Response(_Response):  # type: ignore[misc, valid-type]
    """`accept` has no meaning any more."""

    default_mimetype = content_types.JSON

    def __init__(
        self,
        response: Any = None,
        accept: Any = None,
        status: int | str = 200,
        headers: Mapping[str, str] | None = None,
        mimetype: str | None = None,
        direct_passthrough: bool = False,
    ) -> None:
        super().__init__(
            response=response, status=status, headers=headers, mimetype=mimetype or content_types.JSON
        )


class Request:
    """The request of a `transform_fn` of one's own server."""

    def __init__(self, environ: Any = None, serving_env: Any = None) -> None:
        environ = environ or {}
        self.content_type = environ.get("CONTENT_TYPE") or content_types.JSON
        self.accept = environ.get("HTTP_ACCEPT") or content_types.JSON
        stream = environ.get("wsgi.input")
        body = stream.read() if stream is not None else b""
        self.content = body.decode() if self.content_type in content_types.UTF8_TYPES else body


class Worker:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError(
            "a Worker is the server of an image of your own; this container serves the script by itself"
        )


def default_healthcheck_fn() -> Response:
    return Response(status=200, mimetype=content_types.JSON)
