"""An operation of S3 on its way to the S3 and back: the signature first, then head and body as they come.

The head that goes on is made anew. The body flows on as it comes, except that its last piece is held back until its
hash, or the signatures of its chunks, have been compared: a body that was tampered with never arrives whole, and the
S3 discards it.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from moorage.auth import sigv4
from moorage.auth.verifier import Claim, is_real_hash
from moorage.errors import InvalidSignatureException, MalformedHttpRequestException, S3Error, ServiceError
from moorage.gateway.relay import Relay
from moorage.gateway.request import Request
from moorage.gateway.s3 import chunks, needs
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.errors import header_not_implemented, invalid_argument
from moorage.gateway.s3.needs import Need
from moorage.gateway.s3.reading import S3Request
from moorage.gateway.s3.signing import target_of
from moorage.upstream import UpstreamConnection
from moorage.wire import aws_chunked

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_OF_CHUNKS: Final = (b"x-amz-decoded-content-length", b"x-amz-trailer")
_REQUEST_ID: Final = re.compile(rb"<RequestId>[^<]*</RequestId>")
_TOLD_TO_LISTERS: Final = frozenset(
    ("GetObject", "HeadObject", "GetObjectAttributes", "GetObjectTagging", "DeleteObjectTagging")
)
"""Whether there is the object, they tell only those who may list the bucket."""
_MOST_XML_BYTES: Final = 4 * 1024 * 1024
"""Of a body that the S3 takes in whole: four times what the longest list of parts has."""
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


class S3Reply(Relay):
    """The way back from the S3: replies have the gateway's id of the request, as its logs do."""

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        super().reply_head(status, {**headers, b"x-amz-request-id": self._request.request_id})

    def refusal_of_owner(self) -> ServiceError | None:
        """How a caller is refused whose account does not own the bucket."""
        return None

    def reply_end(self) -> None:
        if self._small_head is not None and self._small_head[0] >= 400:
            if self._small_head[0] == 403 and b"<Code>AccessDenied<" in self._small_body:
                refusal = self.refusal_of_owner()
                if refusal is not None:
                    self._connection = None
                    self._fail(refusal)
                    return
            said = b"<RequestId>%b</RequestId>" % self._request.request_id
            self._small_body = _REQUEST_ID.sub(said, self._small_body, count=1)
        super().reply_end()


class S3Relay(S3Reply):
    """One operation, whose caller is admitted when this is made."""

    def __init__(
        self, front: "GatewayFront", request: Request, caller: Caller, asked: S3Request, body: "Body"
    ) -> None:
        """Raises `ServiceError`."""
        super().__init__(front, request, b"", front.s3)
        self._caller = caller
        self._asked = asked
        self._admitted = caller.admit(asked)
        self._body = body
        self._refusal: ServiceError | None = None
        if request.content_length == 0:
            self._repeatable = True
            body.end()  # there is no last piece to hold back
        self._held = b""
        self._ended = False
        self._request.pause_reading()
        self._connect()

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.without_body = self._request.method == b"HEAD"
        connection.request_complete = False
        body, admitted = self._body, self._admitted
        connection.write(
            self._front.s3_signer.head(
                admitted.account_id,
                self._request.method,
                target_of(self._asked),
                body.headers({**admitted.headers, b"host": host_of(self._request)}),
                payload_hash=body.relayed_hash,
                framing=body.framing,
            )
        )
        self._request.resume_reading()
        if self._ended:
            self._finish(connection)

    def data(self, chunk: bytes) -> None:
        chunk = self._body.data(chunk)
        if self._connection is None:
            self._held += chunk  # one read at most: reading is paused until there is a connection
        else:
            self._send(self._connection, self._held)
            self._held = chunk

    def end(self) -> None:
        self._held += self._body.end()
        self._ended = True
        if self._connection is not None:
            self._finish(self._connection)

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        operation = self._asked.operation.name
        if status == 404 and operation in _TOLD_TO_LISTERS:
            listing = Need("s3:ListBucket", needs.bucket_arn(self._asked.bucket))
            try:
                self._caller.authorize(self._asked, listing)
            except ServiceError as error:
                self._refusal = error  # who may not list is not told what there is not
                return
        super().reply_head(status, headers)

    def refusal_of_owner(self) -> ServiceError | None:
        return self._caller.refusal_of_owner(self._asked)

    def reply_data(self, chunk: bytes) -> None:
        if self._refusal is None:
            super().reply_data(chunk)

    def reply_end(self) -> None:
        if self._refusal is not None:
            self._connection = None
            self._fail(self._refusal)
            return
        super().reply_end()

    def pause_request(self) -> None:
        self._request.pause_reading()

    def resume_request(self) -> None:
        self._request.resume_reading()

    def _finish(self, connection: UpstreamConnection) -> None:
        self._send(connection, self._held)
        self._held = b""
        if self._body.framing is _CHUNKED:
            connection.write(b"0\r\n\r\n")
        connection.request_complete = True

    def _send(self, connection: UpstreamConnection, chunk: bytes) -> None:
        if chunk:
            framed = self._body.framing is _CHUNKED
            connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if framed else chunk)


class Body:
    """A body of one of the forms that S3 takes: what is compared, and what goes on of it."""

    def __init__(self, payload_hash: bytes, *, length: int | None, taken: bool = True) -> None:
        """`payload_hash` is `x-amz-content-sha256`; `length` is that of what goes on, None if it is not known. Of
        what an operation does not take, nothing goes on."""
        self._declared = payload_hash
        self._hasher = hashlib.sha256() if is_real_hash(payload_hash) else None
        self._taken = taken
        self.relayed_hash = sigv4.UNSIGNED_PAYLOAD
        self.framing = _CHUNKED if length is None else b"content-length: %d\r\n" % length

    def headers(self, headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """What the head says of the body that goes on."""
        return headers

    def data(self, chunk: bytes) -> bytes:
        """What goes on for bytes that have come. May raise `ServiceError`."""
        if self._hasher is not None:
            self._hasher.update(chunk)
        return chunk if self._taken else b""

    def end(self) -> bytes:
        """All have come: what else goes on. May raise `ServiceError`."""
        hasher = self._hasher
        if hasher is not None and hasher.hexdigest().encode() != self._declared:
            raise InvalidSignatureException(
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                fault="payload_hash",
                declared=self._declared.decode(),
                computed=hasher.hexdigest(),
            )
        return b""


class UnsignedChunks(Body):
    """Goes on in its chunks as it came: the S3 compares the checksum that the trailer has."""

    def __init__(self, request: Request) -> None:
        super().__init__(sigv4.UNSIGNED_PAYLOAD, length=request.content_length)
        self.relayed_hash = chunks.UNSIGNED_WITH_TRAILER
        self._length = _decoded_length(request)
        self._decoder = aws_chunked.Decoder()

    def data(self, chunk: bytes) -> bytes:
        _feed(self._decoder, chunk, self._length)
        return chunk

    def end(self) -> bytes:
        _check_complete(self._decoder, self._length)
        return b""


class SignedBody(Body):
    """Comes in chunks that are signed. It goes on without them; with a trailer, which the S3 has to compare, it goes
    on in chunks that are not signed."""

    def __init__(self, request: Request, claim: Claim, *, with_trailer: bool) -> None:
        length = _decoded_length(request)
        # How long a body is without the signatures of its chunks is known at its end only.
        super().__init__(sigv4.UNSIGNED_PAYLOAD, length=None if with_trailer else length)
        if with_trailer:
            self.relayed_hash = chunks.UNSIGNED_WITH_TRAILER
        self._length = length
        self._decoder = chunks.SignedChunks(claim, with_trailer=with_trailer)
        self._with_trailer = with_trailer

    def headers(self, headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
        if self._with_trailer:
            return headers
        return {name: value for name, value in headers.items() if name not in _OF_CHUNKS}

    def data(self, chunk: bytes) -> bytes:
        return _feed(self._decoder, chunk, self._length)

    def end(self) -> bytes:
        _check_complete(self._decoder, self._length)
        return b""


def body_of(request: Request, asked: S3Request, payload_hash: bytes, claim: Claim | None) -> Body:
    """`claim` is the verified signature, None for one of version 2. Raises `ServiceError`."""
    streams = asked.operation.name in ("PutObject", "UploadPart")
    if payload_hash not in chunks.FORMS:
        taken, length = asked.operation.takes_body, request.content_length
        if length is None:
            raise S3Error("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
        if payload_hash.startswith(chunks.ANY_FORM):
            raise header_not_implemented(b"x-amz-content-sha256")
        if taken and not streams and length > _MOST_XML_BYTES:
            raise S3Error(
                "MaxMessageLengthExceeded",
                400,
                "Your request was too big.",
                MaxMessageLengthBytes=_MOST_XML_BYTES,
            )
        return Body(payload_hash, length=length if taken else 0, taken=taken)
    if not streams or claim is None:
        raise invalid_argument(
            "The body of this operation cannot come in chunks of aws-chunked.",
            "x-amz-content-sha256",
            payload_hash.decode(),
        )
    if payload_hash == chunks.UNSIGNED_WITH_TRAILER:
        return UnsignedChunks(request)
    return SignedBody(request, claim, with_trailer=payload_hash == chunks.SIGNED_WITH_TRAILER)


def host_of(request: Request) -> bytes:
    """The client's name for this server, which the S3 puts into locations."""
    return request.headers.get(b"host", b"localhost")


def _feed(decoder: aws_chunked.Decoder, chunk: bytes, length: int) -> bytes:
    try:
        data = decoder.feed(chunk)
    except aws_chunked.MalformedChunks as error:
        raise MalformedHttpRequestException(f"The body is not aws-chunked: {error}.") from error
    if decoder.decoded > length:
        raise MalformedHttpRequestException("The body is longer than x-amz-decoded-content-length.")
    return data


def _check_complete(decoder: aws_chunked.Decoder, length: int) -> None:
    if not decoder.complete or decoder.decoded < length:
        raise MalformedHttpRequestException(
            "The body ended before its chunks, or has not the length that was declared."
        )


def _decoded_length(request: Request) -> int:
    text = request.headers.get(b"x-amz-decoded-content-length", b"")
    if not text.isdigit() or len(text) > 18:
        raise MalformedHttpRequestException(
            "x-amz-decoded-content-length must be the length of the decoded body."
        )
    return int(text)
