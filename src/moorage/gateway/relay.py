"""Requests that others answer: relayed to the controller or to the S3, once their signature is verified.

`CollectedRelay` takes the whole body first, because clients of the control plane do not declare its hash: only the
body itself tells whether the signature is right. `StreamedRelay` is for S3, where the hash is declared: the
signature is verified by the head alone and the body flows on as it comes, except that its last piece is held back
until the hash has been compared. A body that was tampered with never arrives whole, and the S3 discards it.
"""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from moorage.auth import s3_actions, sigv4
from moorage.auth.access import session_headers
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Claim, is_real_hash
from moorage.config import MAX_CONTROL_PLANE_BODY_BYTES
from moorage.errors import (
    OUR_FAULT,
    InternalFailure,
    InvalidSignatureException,
    MalformedHttpRequestException,
    RequestEntityTooLargeException,
    ServiceError,
    ServiceUnavailable,
)
from moorage.gateway import s3_repairs
from moorage.gateway.http import is_hop_by_hop
from moorage.gateway.pieces import TINY, gather
from moorage.gateway.request import Call, Request
from moorage.gateway.unverified import unverified_body
from moorage.upstream import Pool, UpstreamConnection
from moorage.wire import aws_chunked

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
            (b"x-moorage-secure", b"true" if self._request.secure else b"false"),
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


class StreamedRelay(Relay):
    """To the S3: the signature first, then head and body as they come."""

    def __init__(
        self,
        front: "GatewayFront",
        request: Request,
        key: AccessKey,
        *,
        target: bytes,
        payload_hash: bytes,
        pool: Pool,
    ) -> None:
        """The signature by `key` has been verified; `payload_hash` is what it says of the body."""
        super().__init__(front, request, target, pool)
        if front.limits is not None:
            front.limits.admit(request, key)
        for action, resource in s3_actions.needs(request.method, request.target, request.headers):
            front.authorize(request, key, action, resource)
        self._declared = payload_hash
        self._hasher = hashlib.sha256() if is_real_hash(payload_hash) else None
        if request.content_length == 0:
            self._repeatable = True
            self._check_hash()  # there is no last piece to hold back
        self._length = request.content_length
        self._decoder: aws_chunked.Decoder | None = None
        if payload_hash.startswith(_STREAMING):
            self._decoder = aws_chunked.Decoder()
            self._length = _decoded_length(request)
            self._left = self._length
            self._not_relayed = _NOT_RELAYED | _OF_CHUNKS
        self._held = b""
        self._has_body = True
        self._ended = False
        self._request.pause_reading()
        self._connect()

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.without_body = self._request.method == b"HEAD"
        length = self._length
        framing = b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length
        connection.request_complete = False
        connection.write(self._head(framing, [] if self._decoder is None else _without_chunks(self._request)))
        self._request.resume_reading()
        if self._ended:
            self._finish(connection)

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        request = self._request
        status, repaired, self._has_body = s3_repairs.repair(request.method, self._target, status, headers)
        super().reply_head(status, repaired)

    def reply_data(self, chunk: bytes) -> None:
        if self._has_body:
            super().reply_data(chunk)

    def data(self, chunk: bytes) -> None:
        if self._hasher is not None:
            self._hasher.update(chunk)
        if self._decoder is not None:
            chunk = self._decode(self._decoder, chunk)
        if self._connection is None:
            self._held += chunk  # one read at most: reading is paused until there is a connection
        else:
            self._send(self._connection, self._held)
            self._held = chunk

    def end(self) -> None:
        self._check_hash()
        if self._decoder is not None and not (self._decoder.complete and self._left == 0):
            raise MalformedHttpRequestException(
                "The body ended before its chunks, or has not the length that was declared."
            )
        self._ended = True
        if self._connection is not None:
            self._finish(self._connection)

    def _decode(self, decoder: aws_chunked.Decoder, chunk: bytes) -> bytes:
        try:
            data = decoder.feed(chunk)
        except aws_chunked.MalformedChunks as error:
            raise MalformedHttpRequestException(f"The body is not aws-chunked: {error}.") from error
        self._left -= len(data)
        if self._left < 0:
            raise MalformedHttpRequestException("The body is longer than x-amz-decoded-content-length.")
        return data

    def _check_hash(self) -> None:
        declared, hasher = self._declared, self._hasher
        if hasher is not None and hasher.hexdigest().encode() != declared:
            raise InvalidSignatureException(
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                fault="payload_hash",
                declared=declared.decode(),
                computed=hasher.hexdigest(),
            )

    def pause_request(self) -> None:
        self._request.pause_reading()

    def resume_request(self) -> None:
        self._request.resume_reading()

    def _finish(self, connection: UpstreamConnection) -> None:
        self._send(connection, self._held)
        self._held = b""
        if self._length is None:
            connection.write(b"0\r\n\r\n")
        connection.request_complete = True

    def _send(self, connection: UpstreamConnection, chunk: bytes) -> None:
        if chunk:
            connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._length is None else chunk)


def unsigned_target(request: Request, claim: Claim) -> bytes:
    return sigv4.without_signature(request.target) if claim.presigned else request.target


def _decoded_length(request: Request) -> int:
    text = request.headers.get(b"x-amz-decoded-content-length", b"")
    if not text.isdigit() or len(text) > 18:
        raise MalformedHttpRequestException(
            "x-amz-decoded-content-length must be the length of the decoded body."
        )
    return int(text)


def _without_chunks(request: Request) -> list[tuple[bytes, bytes]]:
    """The headers that say what the body is once its chunks are decoded, which not every S3 does by itself."""
    encodings = [each.strip() for each in request.headers.get(b"content-encoding", b"").split(b",")]
    others = b",".join(each for each in encodings if each and each.lower() != b"aws-chunked")
    headers = [(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")]
    return [*headers, (b"content-encoding", others)] if others else headers
