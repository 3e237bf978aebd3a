"""Refusals of S3 that several modules make."""

from moorage.errors import S3Error
from moorage.wire import header_text


def invalid_argument(message: str, name: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", 400, message, ArgumentName=name, ArgumentValue=value)


def header_not_implemented(name: bytes) -> S3Error:
    text = header_text.decode(name)
    message = f"A header you provided implies functionality that is not implemented: {text}"
    return S3Error("NotImplemented", 501, message, Header=text)
