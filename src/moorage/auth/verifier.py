"""Who signed this request? The stateful half of SigV4: clock, known keys, and the day's signing keys.

Verification has two steps, because a body may take long to arrive and must be hashed on the way: `claim` judges
everything in the head, so that a stranger is refused before a byte of body is kept; `verify` compares the
signature once the payload's hash is known.

The order of the checks and the texts are those of AWS's front layer, as captured from the real services.
"""

import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from moorage.auth import sigv4
from moorage.auth.credentials import AccessKey, Credentials
from moorage.errors import (
    ExpiredTokenException,
    IncompleteSignatureException,
    InvalidSignatureException,
    MalformedHttpRequestException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)

SKEW_SECONDS = 5 * 60
S3_SKEW_SECONDS = 15 * 60
_MOST_SIGNERS = 4096
_MOST_TARGETS = 4096
_LONGEST_TARGET = 256
_SIGNATURE_LENGTH = 64
_ISO_FORMAT = "%Y%m%dT%H%M%SZ"
_ISO_BASIC = re.compile(rb"\d{8}T\d{6}Z")
_REAL_HASH = re.compile(rb"[0-9a-f]{64}")
_STREAMING = b"STREAMING-"


@dataclass(frozen=True, slots=True)
class SignedBy:
    """What every request that a client signs with one key, on one day, over the same headers, has in common."""

    key: AccessKey
    scope: sigv4.CredentialScope
    scope_text: bytes
    canonical_form: sigv4.CanonicalForm
    signer: sigv4.Signer
    skew_seconds: int
    day: bytes


class Claim:
    """A signature that is well formed, fresh and made with a known key, but not compared yet.

    `payload_hash` is what the client says of its body in `x-amz-content-sha256`, or None: then the hash of
    the body as it arrived is the one that was signed. `unseen` is the part of the `Authorization` header that all
    of a client's requests of one day share, if no request with it has been verified so far.
    """

    __slots__ = ("payload_hash", "service", "signature", "signed_by", "timestamp", "unseen")

    def __init__(
        self,
        signed_by: SignedBy,
        signature: bytes,
        timestamp: bytes,
        payload_hash: bytes | None,
        unseen: bytes | None = None,
    ) -> None:
        self.signed_by = signed_by
        self.service = signed_by.scope.service
        self.signature = signature
        self.timestamp = timestamp
        self.payload_hash = payload_hash
        self.unseen = unseen
        if payload_hash is not None and not _REAL_HASH.fullmatch(payload_hash):
            _check_without_hash(self.service, payload_hash)

    @property
    def declares_real_hash(self) -> bool:
        """Whether the payload's hash is declared and must be compared with the body's own."""
        return self.payload_hash is not None and len(self.payload_hash) == _SIGNATURE_LENGTH


class Verifier:
    """Verifies SigV4 in its header form.

    `regions` are the regions a signature may be scoped to; None accepts any.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        regions: frozenset[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._regions = regions
        self._clock = clock
        self._signers: dict[bytes, SignedBy] = {}
        self._targets: dict[bytes, tuple[bytes, bytes]] = {}
        self._last_date: tuple[bytes, float] = (b"", 0.0)

    def claim(self, headers: Mapping[bytes, bytes]) -> Claim:
        """Judge a request's head.

        Raises:
            MissingAuthenticationTokenException, IncompleteSignatureException, InvalidSignatureException,
            UnrecognizedClientException, ExpiredTokenException: in AWS's order and words.
        """
        header = headers.get(b"authorization")
        if not header:
            raise MissingAuthenticationTokenException("Missing Authentication Token")
        date = headers.get(b"x-amz-date") or _iso_date(headers)
        # All but the signature is the same all day long for one client, so it is judged once a day.
        common, _, signature = header.rpartition(b"Signature=")
        signed_by = self._signers.get(common)
        if signed_by is None or date is None or len(signature) != _SIGNATURE_LENGTH:
            return self._claim_anew(headers, header, date)
        parsed, timestamp = self._last_date
        if parsed != date or abs(timestamp - self._clock()) > signed_by.skew_seconds:
            self._check_fresh(date, signed_by.skew_seconds)
        if not date.startswith(signed_by.day):
            self._check_scope(signed_by.scope, date)
        if b"x-amz-security-token" in headers:
            _check_token(headers)
        return Claim(signed_by, signature, date, headers.get(b"x-amz-content-sha256"))

    def _claim_anew(self, headers: Mapping[bytes, bytes], header: bytes, date: bytes | None) -> Claim:
        authorization = sigv4.parse_authorization(header, has_date=date is not None)
        assert date is not None
        for_s3 = authorization.credential.split("/")[3:4] == ["s3"]
        skew_seconds = S3_SKEW_SECONDS if for_s3 else SKEW_SECONDS
        self._check_fresh(date, skew_seconds)
        if b"host" not in authorization.signed_headers:
            raise InvalidSignatureException(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
            )
        sigv4.check_algorithm(authorization)
        scope = sigv4.parse_credential(authorization.credential)
        self._check_scope(scope, date)
        key = self._credentials.get(scope.access_key_id)
        if key is None:
            raise UnrecognizedClientException("The security token included in the request is invalid.")
        _check_token(headers)
        signed_by = SignedBy(
            key,
            scope,
            scope.text.encode("latin-1"),
            sigv4.CanonicalForm(authorization.signed_headers),
            sigv4.Signer(sigv4.signing_key(key.secret_access_key, scope)),
            skew_seconds,
            scope.date.encode("latin-1"),
        )
        common, _, last = header.rpartition(b"Signature=")
        signature = authorization.signature.encode("latin-1")
        return Claim(
            signed_by,
            signature,
            date,
            headers.get(b"x-amz-content-sha256"),
            unseen=common if signature == last else None,
        )

    def verify(
        self, claim: Claim, *, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body_hash: str
    ) -> AccessKey:
        """Compare the signature. `body_hash` is the hex SHA-256 of the body as it arrived; it counts when the
        client declared none, and must agree when the client declared one.

        Raises:
            InvalidSignatureException: it does not match.
        """
        if claim.payload_hash is None:
            payload_hash = body_hash.encode()
        else:
            payload_hash = claim.payload_hash
            if claim.declares_real_hash and payload_hash != body_hash.encode():
                raise InvalidSignatureException(
                    "The value of 'x-amz-content-sha256' does not match the SHA-256 of the request's body: "
                    f"it should have been '{body_hash}'."
                )
        signed_by = claim.signed_by
        path, query = self._canonical_target(target, for_s3=claim.service == "s3")
        canonical = signed_by.canonical_form.fill(
            method=method, path=path, query=query, headers=headers, payload_hash=payload_hash
        )
        to_sign = sigv4.string_to_sign(
            timestamp=claim.timestamp, scope=signed_by.scope_text, canonical=canonical
        )
        if not hmac.compare_digest(signed_by.signer.sign(to_sign), claim.signature):
            raise InvalidSignatureException(
                "The request signature we calculated does not match the signature you provided. Check your "
                "AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n"
                "The Canonical String for this request should have been\n"
                f"'{canonical.decode('latin-1')}'\n\n"
                f"The String-to-Sign should have been\n'{to_sign.decode()}'\n"
            )
        if claim.unseen is not None:
            if len(self._signers) >= _MOST_SIGNERS:
                self._signers.clear()
            self._signers[claim.unseen] = signed_by
        return signed_by.key

    def _canonical_target(self, target: bytes, *, for_s3: bool) -> tuple[bytes, bytes]:
        """The canonical path and query. Invocations have few different targets, so those are remembered."""
        if for_s3:
            path, _, query = target.partition(b"?")
            return path, sigv4.canonical_query(query)
        known = self._targets.get(target)
        if known is None:
            path, _, query = target.partition(b"?")
            known = sigv4.canonical_path(path), sigv4.canonical_query(query)
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            if len(target) <= _LONGEST_TARGET:
                self._targets[target] = known
        return known

    def _parse_date(self, date: bytes) -> float:
        """Seconds since the epoch. The requests of one second share one parse."""
        cached, timestamp = self._last_date
        if cached == date:
            return timestamp
        text = date.decode("latin-1")
        try:
            if not _ISO_BASIC.fullmatch(date):
                raise ValueError(text)
            parsed = datetime.strptime(text, _ISO_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            raise IncompleteSignatureException(
                f"Date must be in ISO-8601 'basic format'. Got '{text}'. "
                "See http://en.wikipedia.org/wiki/ISO_8601"
            ) from None
        self._last_date = (date, parsed.timestamp())
        return parsed.timestamp()

    def _check_fresh(self, date: bytes, skew: int) -> None:
        now = self._clock()
        timestamp = self._parse_date(date)
        if -skew <= timestamp - now <= skew:
            return
        sent, minutes = date.decode("latin-1"), skew // 60
        if timestamp < now:
            raise InvalidSignatureException(
                f"Signature expired: {sent} is now earlier than {_stamp(now - skew)} ({_stamp(now)} - {minutes} min.)"
            )
        raise InvalidSignatureException(
            f"Signature not yet current: {sent} is still later than {_stamp(now + skew)} "
            f"({_stamp(now)} + {minutes} min.)"
        )

    def _check_scope(self, scope: sigv4.CredentialScope, date: bytes) -> None:
        if scope.terminator != "aws4_request":
            raise InvalidSignatureException(
                "Credential should be scoped with a valid terminator: 'aws4_request', "
                f"not '{scope.terminator}'. "
            )
        if self._regions is not None and scope.region not in self._regions:
            raise InvalidSignatureException(
                f"Credential should be scoped to a valid region, not '{scope.region}'. "
            )
        day = date[:8].decode("latin-1")
        if scope.date != day:
            raise InvalidSignatureException(
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{scope.date}' != '{day}', from '{date.decode('latin-1')}'."
            )


def _iso_date(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The header `Date`, which may stand in for `X-Amz-Date`, as the timestamp that was signed with it."""
    date = headers.get(b"date")
    if not date:
        return None
    try:
        parsed = parsedate_to_datetime(date.decode("latin-1"))
        utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return date
    return utc.strftime(_ISO_FORMAT).encode()


def _check_without_hash(service: str, declared: bytes) -> None:
    """What may stand in `x-amz-content-sha256` instead of a hash: for S3, which has its own ways to protect a body,
    what S3 knows; elsewhere nothing, for then the signature would say nothing of the body."""
    if service == "s3":
        if declared != sigv4.UNSIGNED_PAYLOAD and not declared.startswith(_STREAMING):
            raise MalformedHttpRequestException(
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value."
            )
    elif declared == sigv4.UNSIGNED_PAYLOAD:
        raise InvalidSignatureException(
            "UNSIGNED-PAYLOAD is not accepted in 'x-amz-content-sha256' by this server: sign the request's body."
        )
    else:
        raise InvalidSignatureException(
            "The value of 'x-amz-content-sha256' must be the SHA-256 of the request's body, in lower-case "
            f"hexadecimal, not '{declared.decode('latin-1')}'."
        )


def _check_token(headers: Mapping[bytes, bytes]) -> None:
    """No temporary credentials are issued, so a session token is none of ours."""
    if b"x-amz-security-token" in headers:
        raise ExpiredTokenException("The security token included in the request is expired")


def _stamp(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime(_ISO_FORMAT)
