"""Bodies that come in signed chunks: each chunk, and the trailers, are signed with the key that signed the head.

Source: "Signature calculations for the authorization header: Transferring payload in multiple chunks", and the same
"… including trailing headers", in the S3 API reference.
"""

import hashlib
import hmac
from typing import Final

from moorage.auth.sigv4 import EMPTY_SHA256
from moorage.auth.verifier import Claim
from moorage.errors import S3Error
from moorage.wire.aws_chunked import Decoder

UNSIGNED_WITH_TRAILER: Final = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED: Final = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_WITH_TRAILER: Final = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
FORMS: Final = frozenset((UNSIGNED_WITH_TRAILER, SIGNED, SIGNED_WITH_TRAILER))
"""Values of `x-amz-content-sha256` that say that the body comes in chunks."""

ANY_FORM: Final = b"STREAMING-"
"""What those begin with, and others that are not implemented (a signature of ECDSA)."""

_EXTENSION: Final = b"chunk-signature="
_TRAILER_SIGNATURE: Final = b"x-amz-trailer-signature"


class SignedChunks(Decoder):
    """Verifies each chunk before the piece that completes it is given back. Raises `S3Error`.

    With a trailer it gives back the same chunks and trailer without signatures: what has a checksum at its end can
    only be compared by the S3.
    """

    def __init__(self, claim: Claim, *, with_trailer: bool) -> None:
        """The signature of the head has been verified."""
        super().__init__()
        self._claim = claim
        self._previous = claim.signature
        self._with_trailer = with_trailer
        self._declared = b""
        self._hash = hashlib.sha256()
        self._last = False

    def chunk_begins(self, size: int, extension: bytes) -> bytes:
        if not extension.startswith(_EXTENSION):
            raise _mismatch()
        self._declared = extension[len(_EXTENSION) :]
        self._hash = hashlib.sha256()
        self._last = size == 0
        return b"%x\r\n" % size if self._with_trailer else b""

    def chunk_data(self, piece: bytes) -> None:
        self._hash.update(piece)

    def chunk_ends(self) -> bytes:
        content = b"%b\n%b" % (EMPTY_SHA256.encode(), self._hash.hexdigest().encode())
        self._check(b"AWS4-HMAC-SHA256-PAYLOAD", content, self._declared)
        return b"\r\n" if self._with_trailer and not self._last else b""

    def trailers_end(self) -> bytes:
        if not self._with_trailer:
            return b""
        declared = self.trailers.pop(_TRAILER_SIGNATURE, b"")
        lines = b"".join(b"%b:%b\n" % item for item in sorted(self.trailers.items()))
        self._check(b"AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(lines).hexdigest().encode(), declared)
        return b"".join(b"%b:%b\r\n" % item for item in self.trailers.items()) + b"\r\n"

    def _check(self, algorithm: bytes, content: bytes, declared: bytes) -> None:
        claim = self._claim
        to_sign = b"\n".join(
            (algorithm, claim.timestamp, claim.signed_by.scope_text, self._previous, content)
        )
        signature = claim.signed_by.signer.sign(to_sign)
        if not hmac.compare_digest(signature, declared):
            raise _mismatch()
        self._previous = signature


def _mismatch() -> S3Error:
    return S3Error(
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided: a chunk of the body, or its "
        "trailer, is not the one that was signed.",
    )
