"""Requests that others answer: relayed to the controller or to the S3, once their signature is verified.

`Relay` is the way back, which all have in common. `CollectedRelay` is for the controller: it takes the whole body
first, because clients of the control plane do not declare its hash, and only the body itself tells whether the
signature is right.
"""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from moorage.auth import sigv4
from moorage.auth.access import session_headers
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Claim
from moorage.config import MAX_CONTROL_PLANE_BODY_BYTES
from moorage.errors import (
    OUR_FAULT,
    InternalFailure,
    RequestEntityTooLargeException,
    ServiceError,
    ServiceUnavailable,
)
from moorage.gateway.http import is_hop_by_hop
from moorage.gateway.pieces import TINY, gather
from moorage.gateway.request import Call, Request
from moorage.gateway.unverified import unverified_body
from moorage.upstream import Pool, UpstreamConnection

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_SMALL_REPLY = 64 * 1024
_PATIENCE_SECONDS = 8.0
_RETRY_SECONDS = 0.05
_NOT_RELAYED = frozenset((b"authorization", b"expect", b"content-length", b"x-amz-security-token"))
_OF_CHUNKS = frozenset(
    (b"content-encoding", b"x-amz-content-sha256", b"x-amz-decoded-content-length", b"x-amz-trailer")
)
_STREAMING = b"STREAMING-"
_NOT_RETURNED = frozenset((b"date", b"server", b"content-length", b"x-amzn-requestid"))


class Relay(Call, ABC):
    """The way back, which all relays share: the reply flows to the client as it comes.

    A small one is sent in one piece, once all of it is there. Were this process killed between its head and its body,
    boto3 would take what came for a whole reply without members.
    """

    def __init__(self, front: "GatewayFront", request: Request, target: bytes, pool: Pool) -> None:
        """`target` is the request's without what belongs to a signature in its query."""
        self._front = front
        self._request = request
        self._target = target
        self._pool = pool
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._patient_until = front.loop.time() + _PATIENCE_SECONDS
        self._repeatable = False  # everything needed to send the request again is here
        self._not_relayed = _NOT_RELAYED
        self._chunked_reply = False
        self._reply_begun = False
        self._small_head: tuple[int, bytes] | None = None
        self._small_body = b""

    @abstractmethod
    def connected(self, connection: UpstreamConnection) -> None:
        """Write the request."""

    @abstractmethod
    def pause_request(self) -> None:
        """Take no more of the body from the client for now."""

    @abstractmethod
    def resume_request(self) -> None:
        """Take it again."""

    def cancel(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def pause_reply(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reply(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def not_connected(self, error: BaseException) -> None:
        """It is starting or restarting, which takes about a second: try again for a while."""
        self._connecting = None
        if self._front.loop.time() < self._patient_until:
            self._retry = self._front.loop.call_later(_RETRY_SECONDS, self._connect)
            return
        self._fail(
            ServiceUnavailable(
                "The part of the server that answers this request is starting or restarting; "
                "endpoints in service keep answering. Please try again."
            )
        )

    def _connect(self) -> None:
        self._connecting = self._pool.start(self)

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        lines = [
            name + b": " + value + b"\r\n"
            for name, value in headers.items()
            if name not in _NOT_RETURNED and not is_hop_by_hop(name)
        ]
        has_body = self._request.method != b"HEAD" and status not in (204, 304)
        length = headers.get(b"content-length")
        if length is not None and has_body and int(length) <= _SMALL_REPLY:
            self._small_head = status, b"".join(lines)
            return
        self._reply_begun = True
        if length is not None:
            lines.append(b"Content-Length: " + length + b"\r\n")
        elif has_body and self._request.understands_chunks:
            self._chunked_reply = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        self._request.begin_reply(status, b"".join(lines))

    def reply_data(self, chunk: bytes) -> None:
        if self._small_head is not None:
            self._small_body += chunk
            return
        if self._chunked_reply:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        self._request.write(chunk)

    def reply_end(self) -> None:
        self._connection = None
        if self._small_head is not None:
            self._request.reply(*self._small_head, self._small_body)
            return
        if self._chunked_reply:
            self._request.write(b"0\r\n\r\n")
        self._request.end_reply()

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        connection, self._connection = self._connection, None
        if untouched and self._repeatable and connection is not None and connection.reused:
            # It closed an idle connection at the very moment, and never read the request.
            self._connecting = self._pool.start(self, fresh=True)
        elif self._reply_begun:
            self._request.abort()
        else:
            self._fail(self._broken_off(reason))

    def reply_failed(self) -> None:
        self._connection = None
        self._fail(InternalFailure(OUR_FAULT))

    def _fail(self, error: ServiceError) -> None:
        self._request.fail(error)

    def _broken_off(self, reason: str) -> ServiceError:
        return InternalFailure(f"The part of the server that answers this request broke off: {reason}.")

    def _head(self, framing: bytes, extra: list[tuple[bytes, bytes]]) -> bytes:
        request = self._request
        lines = [b"%b %b HTTP/1.1\r\n" % (request.method, self._target)]
        lines += [
            name + b": " + value + b"\r\n"
            for name, value in request.headers.items()
            if name not in self._not_relayed
            and not name.startswith(b"x-moorage-")
            and not is_hop_by_hop(name)
        ]
        lines += [name + b": " + value + b"\r\n" for name, value in extra]
        return b"".join(lines) + framing + b"\r\n"


class CollectedRelay(Relay):
    """To the controller: the body first, then the signature, then the relay."""

    most_body_bytes: ClassVar[int] = MAX_CONTROL_PLANE_BODY_BYTES

    def __init__(self, front: "GatewayFront", request: Request, claim: Claim, pool: Pool) -> None:
        super().__init__(front, request, unsigned_target(request, claim), pool)
        self._claim = claim
        self._repeatable = True
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._message = b""
        self._check_size(request.content_length or 0)

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._check_size(self._size)
        self._parts.append(chunk)
        if len(self._parts) > 1 and len(chunk) < TINY:
            gather(self._parts)

    def unverified_body(self) -> tuple[str, int]:
        return unverified_body(self._front.verifier, self._request, self._claim, self.most_body_bytes)

    def end(self) -> None:
        body = b"".join(self._parts)
        self._parts.clear()
        request = self._request
        key = self._front.verifier.verify(
            self._claim, request.method, request.target, request.headers, hashlib.sha256(body).hexdigest()
        )
        limits = self._front.limits
        if limits is not None:
            limits.admit(request, key)
        if request.target.startswith(b"/_moorage/"):
            action = "moorage:Read" if request.method == b"GET" else "moorage:Write"
            self._front.authorize(request, key, action, "*")
        self._message = self._render(key, body)
        self._patient_until = self._front.loop.time() + _PATIENCE_SECONDS  # the body may have taken long
        self._connect()

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.without_body = self._request.method == b"HEAD"
        connection.write(self._message)

    def _render(self, key: AccessKey, body: bytes) -> bytes:
        """The request to the controller. May raise `ServiceError`."""
        scope = self._claim.signed_by.scope
        identity = [
            (b"x-moorage-account-id", key.account_id.encode()),
            (b"x-moorage-principal-arn", key.principal_arn.encode()),
            (b"x-moorage-access-key-id", key.access_key_id.encode()),
            (b"x-moorage-user-id", key.user_id.encode()),
            *session_headers(key),
            (b"x-moorage-source-ip", self._request.client_address.encode()),
            (b"x-moorage-secure", b"true" if self._request.protected else b"false"),
            (b"x-moorage-service", scope.service.encode()),
            (b"x-moorage-region", self._front.settings.region.encode()),
            (b"x-amzn-requestid", self._request.request_id),
        ]
        return self._head(b"Content-Length: %d\r\n" % len(body), identity) + body

    def pause_request(self) -> None:
        """The body is small and written in one piece."""

    def resume_request(self) -> None:
        """Nothing was paused."""

    def _check_size(self, size: int) -> None:
        most = self.most_body_bytes
        if size > most:
            raise RequestEntityTooLargeException(f"HTTP content length exceeded {most} bytes.")


def unsigned_target(request: Request, claim: Claim) -> bytes:
    return sigv4.without_signature(request.target) if claim.presigned else request.target
