"""What the controller asks of the embedded S3 itself, past the gateway: who owns a bucket, and to delete one.

One request a connection, in a thread: both are rare.
"""

import asyncio
import http.client
import socket
from pathlib import Path
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.storage.s3_accounts import ADMINISTRATOR, REGION, S3Accounts

_TIMEOUT_SECONDS: Final = 2.0
_MOST_REPLY: Final = 1024 * 1024
_NAMESPACE: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class EmbeddedS3Unavailable(Exception):
    """It does not answer, or not as an S3. It has no cause: raised in a transaction, the cause would be taken for the
    database's trouble."""


class S3Refusal(Exception):
    """It refuses, with an error of S3's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class EmbeddedS3:
    """The S3 that listens on `socket_path`."""

    def __init__(self, socket_path: Path, accounts: S3Accounts) -> None:
        self._path = socket_path
        self._accounts = accounts

    async def owner_of(self, bucket: str) -> str | None:
        """The account that the bucket belongs to; None if there is no such bucket.

        Raises:
            EmbeddedS3Unavailable: see there.
        """
        try:
            body = await self._ask(ADMINISTRATOR, "GET", f"/{quote(bucket, safe='')}?acl")
        except S3Refusal as error:
            if error.code in ("NoSuchBucket", "InvalidBucketName"):
                return None
            raise EmbeddedS3Unavailable(f"the embedded S3 does not tell who owns a bucket: {error}") from None
        owner = _parsed(body).findtext(f"{_NAMESPACE}Owner/{_NAMESPACE}ID") or _parsed(body).findtext(
            "Owner/ID"
        )
        if not owner:
            raise EmbeddedS3Unavailable(
                "the embedded S3 does not tell who owns a bucket: its reply has no owner"
            )
        return owner

    async def delete_bucket(self, account_id: str, bucket: str) -> None:
        """As the account. It is known what happened only if this does not raise `EmbeddedS3Unavailable`.

        Raises:
            S3Refusal: such as NoSuchBucket, BucketNotEmpty.
            EmbeddedS3Unavailable: see there.
        """
        await self._ask(account_id, "DELETE", f"/{quote(bucket, safe='')}")

    async def _ask(self, access_key: str, method: str, target: str) -> bytes:
        request = AWSRequest(method, f"http://localhost{target}")
        credentials = Credentials(access_key, self._accounts.secret_of(access_key))
        S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
        return await asyncio.to_thread(self._exchange, method, target, dict(request.headers.items()))

    def _exchange(self, method: str, target: str, headers: dict[str, str]) -> bytes:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, target, headers={"Host": "localhost", **headers})
            reply = connection.getresponse()
            body = reply.read(_MOST_REPLY)
        except (OSError, http.client.HTTPException) as error:
            raise EmbeddedS3Unavailable(f"the embedded S3 does not answer: {error}") from None
        finally:
            connection.close()
        if reply.status >= 300:
            error_body = _parsed(body)
            raise S3Refusal(
                reply.status,
                error_body.findtext("Code") or "InternalError",
                error_body.findtext("Message") or f"status {reply.status}",
            )
        return body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _parsed(body: bytes) -> ElementTree.Element:
    """Raises `EmbeddedS3Unavailable`."""
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise EmbeddedS3Unavailable(f"the embedded S3 does not answer in XML: {error}") from None
