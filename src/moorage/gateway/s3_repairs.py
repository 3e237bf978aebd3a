"""What the embedded S3 answers otherwise than S3 does, and SDKs stumble over: put right on the way back."""

from collections.abc import Mapping

Headers = Mapping[bytes, bytes]


def repair(method: bytes, target: bytes, status: int, headers: Headers) -> tuple[int, Headers, bool]:
    """The status, the headers and whether the body is to be sent.

    * A range comes as 200 with the checksum of the whole object, which SDKs compare with the part: it is a 206.
    * Creating a bucket that is one's own is no error in us-east-1, and scripts do it every time.
    """
    if status == 200 and b"content-range" in headers:
        return 206, {k: v for k, v in headers.items() if not k.startswith(b"x-amz-checksum-")}, True
    if status == 409 and method == b"PUT" and _is_bucket(target):
        return 200, {b"location": target.rstrip(b"/"), b"content-length": b"0"}, False
    return status, headers, True


def _is_bucket(target: bytes) -> bool:
    return b"?" not in target and target.strip(b"/").count(b"/") == 0 and target != b"/"
