"""Refusals in S3's own codes."""

from moorage.errors import ServiceError


class S3Error(ServiceError):
    """A refusal that only S3 knows. `members` are elements of its XML beside the code and the message."""

    def __init__(self, s3_code: str, s3_status: int, message: str, **members: object) -> None:
        super().__init__(message, **members)
        self.s3_code = s3_code
        self.s3_status = s3_status
