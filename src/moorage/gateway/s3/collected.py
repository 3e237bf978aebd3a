"""Operations of S3 whose body decides what they are: it is taken in whole before anything is relayed."""

import base64
import binascii
import hashlib
import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from moorage.auth.access import session_headers
from moorage.errors import S3Error, ServiceError
from moorage.gateway.request import Request
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.reading import S3Request
from moorage.gateway.s3.relay import Body, S3Reply, host_of
from moorage.gateway.s3.signing import target_of
from moorage.upstream import Pool, UpstreamConnection

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_MOST_POLICY_BYTES: Final = 256 * 1024
"""Far more than the controller takes, which says so."""
_ABOUT_BODY: Final = frozenset((b"content-md5", b"content-type", b"x-amz-sdk-checksum-algorithm"))
_PATHS: Final[Mapping[str, str]] = {
    "GetBucketPolicy": "/policy",
    "PutBucketPolicy": "/policy",
    "DeleteBucketPolicy": "/policy",
    "GetBucketPolicyStatus": "/policy-status",
    "DeleteBucket": "",
}
_DIGESTS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
    b"x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    b"x-amz-checksum-sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    b"x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
    b"x-amz-checksum-crc32c": lambda body: _crc(body, 0x82F63B78, 32),
    b"x-amz-checksum-crc64nvme": lambda body: _crc(body, 0x9A6C9329AC4BC9B5, 64),
}


class CollectedS3Relay(S3Reply):
    """Collects the body, compares what was declared of it, and writes the request that comes of it."""

    def __init__(
        self,
        front: "GatewayFront",
        request: Request,
        caller: Caller,
        asked: S3Request,
        body: Body,
        pool: Pool,
        *,
        most_body_bytes: int,
    ) -> None:
        """Raises `ServiceError`."""
        super().__init__(front, request, b"", pool)
        self._caller = caller
        self._asked = asked
        self._body = body
        self._most_body_bytes = most_body_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._message = b""
        self._check_size(request.content_length or 0)

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._check_size(self._size)
        self._parts.append(self._body.data(chunk))

    def end(self) -> None:
        self._body.end()
        body = b"".join(self._parts)
        self._parts.clear()
        check_digests(body, self._asked.headers)
        self._repeatable = True
        self._message = self.message(body)
        if self._message:
            self._connect()

    @abstractmethod
    def message(self, body: bytes) -> bytes:
        """The whole request that is relayed; empty if the client has its reply already. May raise `ServiceError`."""

    def refusal_of_owner(self) -> ServiceError | None:
        return self._caller.refusal_of_owner(self._asked)

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.write(self._message)

    def pause_request(self) -> None:
        """What is relayed is written in one piece."""

    def resume_request(self) -> None:
        """Nothing was paused."""

    def _request_with(self, content: bytes, account_id: str, headers: Mapping[bytes, bytes]) -> bytes:
        """What was asked, with another body. Of the `headers`, those about the client's body do not go on."""
        kept = {
            name: value
            for name, value in headers.items()
            if name not in _ABOUT_BODY and not name.startswith(b"x-amz-checksum-")
        }
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest())
        head = self._front.s3_signer.head(
            account_id,
            self._request.method,
            target_of(self._asked),
            {**kept, b"host": host_of(self._request), b"content-md5": digest},
            framing=b"content-length: %d\r\n" % len(content),
        )
        return head + content

    def _check_size(self, size: int) -> None:
        if size > self._most_body_bytes:
            raise S3Error(
                "EntityTooLarge",
                400,
                f"The body of {self._asked.operation.name} must not exceed {self._most_body_bytes} bytes.",
            )


class ControllerRelay(CollectedS3Relay):
    """What the controller answers: policies of buckets, and the deletion of a bucket together with its policy."""

    def __init__(
        self, front: "GatewayFront", request: Request, caller: Caller, asked: S3Request, body: Body
    ) -> None:
        """Raises `ServiceError`."""
        super().__init__(
            front, request, caller, asked, body, front.controller, most_body_bytes=_MOST_POLICY_BYTES
        )
        self._admitted = caller.admit(asked)

    def message(self, body: bytes) -> bytes:
        key, request = self._caller.key, self._request
        headers = [
            (b"host", b"controller"),
            (b"x-moorage-operation", self._asked.operation.name.encode()),
            (b"x-moorage-s3-account-id", self._admitted.account_id.encode()),
            (b"x-moorage-account-id", key.account_id.encode()),
            (b"x-moorage-principal-arn", key.principal_arn.encode()),
            (b"x-moorage-access-key-id", key.access_key_id.encode()),
            (b"x-moorage-user-id", key.user_id.encode()),
            *session_headers(key),
            (b"x-moorage-source-ip", request.client_address.encode()),
            (b"x-moorage-secure", b"true" if request.protected else b"false"),
            (b"x-moorage-service", b"s3"),
            (b"x-moorage-region", self._front.settings.region.encode()),
            (b"x-amzn-requestid", request.request_id),
            (b"content-length", b"%d" % len(body)),
        ]
        path = f"/s3/buckets/{quote(self._asked.bucket, safe='')}{_PATHS[self._asked.operation.name]}"
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method, path.encode(), lines, body)


def check_digests(body: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Compare what the client declared of the body, where the S3 does not see that body. Raises `S3Error`."""
    if sum(name.startswith(b"x-amz-checksum-") for name in headers) > 1:
        raise S3Error(
            "InvalidRequest",
            400,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    for name, digest in _DIGESTS.items():
        declared = headers.get(name)
        if declared is None:
            continue
        try:
            expected = base64.b64decode(declared, validate=True)
        except (binascii.Error, ValueError):
            expected = b""
        if expected != digest(body):
            what = "Content-MD5" if name == b"content-md5" else name.decode().rpartition("-")[2].upper()
            raise S3Error(
                "BadDigest", 400, f"The {what} you specified did not match the calculated checksum."
            )


def _crc(body: bytes, polynomial: int, bits: int) -> bytes:
    """A reflected CRC of a body that is short; `polynomial` is reflected as well."""
    ones = (1 << bits) - 1
    value = ones
    table = _table(polynomial)
    for byte in body:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return (value ^ ones).to_bytes(bits // 8, "big")


def _table(polynomial: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table
