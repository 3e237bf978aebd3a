"""Refusals in S3's own codes."""

from moorage.errors import ServiceError
from moorage.wire import header_text


class S3Error(ServiceError):
    """A refusal that only S3 knows. `members` are elements of its XML beside the code and the message."""

    def __init__(self, s3_code: str, s3_status: int, message: str, **members: object) -> None:
        super().__init__(message, **members)
        self.s3_code = s3_code
        self.s3_status = s3_status


def invalid_argument(message: str, name: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", 400, message, ArgumentName=name, ArgumentValue=value)


def header_not_implemented(name: bytes) -> S3Error:
    text = header_text.decode(name)
    message = f"A header you provided implies functionality that is not implemented: {text}"
    return S3Error("NotImplemented", 501, message, Header=text)
