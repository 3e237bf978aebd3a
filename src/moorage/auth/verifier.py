"""Who signed this request? The stateful half of SigV4: clock, known keys, and the day's signing keys.

Verification has two steps, because a body may take long to arrive and must be hashed on the way: `claim` judges
everything in the head, so that a stranger is refused before a byte of body is kept; `verify` compares the
signature once the payload's hash is known.

The order of the checks and the texts are those of AWS's front layer, as captured from the real services. S3 has words
of its own, for which each error names its `fault`.

What a client's requests of one day have in common is judged once and remembered, but only for as long as the
credentials stay as they are: `replace` and `forget` end it, for requests whose body is still arriving too.
"""

import hmac
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from moorage.auth import signing_time, sigv2, sigv4
from moorage.auth.credentials import AccessKey, Credentials, SessionOpener
from moorage.errors import (
    ExpiredTokenException,
    InvalidSignatureException,
    MalformedHttpRequestException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)
from moorage.wire import header_text

SKEW_SECONDS = 5 * 60
S3_SKEW_SECONDS = 15 * 60
_MOST_SIGNERS = 4096
_MOST_TARGETS = 4096
_LONGEST_TARGET = 256
_SIGNATURE_LENGTH = 64
_REAL_HASH = re.compile(rb"[0-9a-f]{64}")
_STREAMING = b"STREAMING-"
_QUESTION_MARK = ord("?")  # looking for a number in bytes takes a fifth of the time
_TOKEN = b"x-amz-security-token"
_INVALID_TOKEN = "The security token included in the request is invalid."


@dataclass(frozen=True, slots=True)
class SignedBy:
    """What every request that a client signs with one key, on one day, over the same headers, has in common."""

    key: AccessKey
    scope: sigv4.CredentialScope
    scope_text: bytes
    service: str
    for_s3: bool
    presigned: bool
    plain_target: bool
    canonical_form: sigv4.CanonicalForm
    signer: sigv4.Signer
    skew_seconds: int
    day: bytes
    token: bytes | None
    expires_at: float
    known: "dict[bytes, SignedBy]"
    """The verifier's memory at the time; once that is another, this may be about a key that is no more."""


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
        self.service = signed_by.service
        self.signature = signature
        self.timestamp = timestamp
        self.payload_hash = payload_hash
        self.unseen = unseen

    @property
    def declares_real_hash(self) -> bool:
        """Whether the payload's hash is declared and must be compared with the body's own."""
        return self.payload_hash is not None and is_real_hash(self.payload_hash)

    @property
    def presigned(self) -> bool:
        """Whether the signature is in the query."""
        return self.signed_by.presigned


class Verifier:
    """Verifies SigV4 in its header form and in its query form (presigned).

    `regions` are the regions a signature may be scoped to; None accepts any. `open_session` knows the keys of
    sessions by their tokens; None issues no sessions. `allow_unsigned_payload` accepts `UNSIGNED-PAYLOAD` for
    invocations that come without TLS, too.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        open_session: SessionOpener | None = None,
        regions: frozenset[str] | None = None,
        allow_unsigned_payload: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._open_session = open_session
        self._regions = regions
        self._allow_unsigned_payload = allow_unsigned_payload
        self._clock = clock
        self._signers: dict[bytes, SignedBy] = {}
        self._targets: dict[bytes, tuple[bytes, bytes]] = {}
        self._last_date: tuple[bytes, float] = (b"", 0.0)

    def __repr__(self) -> str:
        return f"<Verifier {len(self._credentials)} keys, {len(self._signers)} signers remembered>"

    def replace(self, credentials: Credentials) -> None:
        """From now on these are the permanent keys."""
        self._credentials = credentials
        self.forget()

    def forget(self) -> None:
        """Ask for every key anew, and open every session anew: some may have been revoked."""
        self._signers = {}

    def claim(self, headers: dict[bytes, bytes], target: bytes = b"", secure: bool = False) -> Claim:
        """Judge a request's head. `secure` is whether it came by TLS.

        Raises:
            MissingAuthenticationTokenException, IncompleteSignatureException, InvalidSignatureException,
            UnrecognizedClientException, ExpiredTokenException: in AWS's order and words.
        """
        header = headers.get(b"authorization")
        if _QUESTION_MARK in target and sigv4.is_presigned(target):
            return self._claim_presigned(headers, target, header, secure=secure)
        if not header:
            raise MissingAuthenticationTokenException("Missing Authentication Token")
        date = headers.get(b"x-amz-date") or signing_time.iso_date(headers)
        # All but the signature is the same all day long for one client, so it is judged once a day.
        common, _, signature = header.rpartition(b"Signature=")
        signed_by = self._signers.get(common)
        if (
            signed_by is None
            or date is None
            or len(signature) != _SIGNATURE_LENGTH
            or headers.get(_TOKEN) != signed_by.token
        ):
            return self._claim_anew(headers, header, date, secure=secure)
        now = self._clock()
        parsed, timestamp = self._last_date
        if parsed != date or abs(timestamp - now) > signed_by.skew_seconds:
            self._check_fresh(date, signed_by.skew_seconds)
        if not date.startswith(signed_by.day):
            self._check_scope(signed_by.scope, date)
        if now >= signed_by.expires_at:
            raise _expired_token()
        if signed_by.for_s3:
            _check_all_signed(headers, signed_by.canonical_form.names)
        payload_hash = headers.get(b"x-amz-content-sha256")
        if payload_hash is not None and not _REAL_HASH.fullmatch(payload_hash):
            self._check_without_hash(signed_by.service, payload_hash, secure=secure)
        return Claim(signed_by, signature, date, payload_hash)

    def _claim_anew(
        self, headers: dict[bytes, bytes], header: bytes, date: bytes | None, *, secure: bool
    ) -> Claim:
        authorization = sigv4.parse_authorization(header, has_date=date is not None)
        assert date is not None
        skew_seconds = _skew_seconds(authorization)
        self._check_fresh(date, skew_seconds)
        signed_by = self._judge(authorization, headers, date, headers.get(_TOKEN), skew_seconds)
        payload_hash = headers.get(b"x-amz-content-sha256")
        if payload_hash is not None and not _REAL_HASH.fullmatch(payload_hash):
            self._check_without_hash(signed_by.service, payload_hash, secure=secure)
        common, _, last = header.rpartition(b"Signature=")
        signature = authorization.signature.encode("latin-1")
        return Claim(signed_by, signature, date, payload_hash, unseen=common if signature == last else None)

    def _claim_presigned(
        self, headers: dict[bytes, bytes], target: bytes, header: bytes | None, *, secure: bool
    ) -> Claim:
        """A presigned request comes from whoever was given the URL, a few times at most: nothing is remembered."""
        if header:
            raise InvalidSignatureException(
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
                fault="both_forms",
                authorization=header.decode("latin-1"),
            )
        authorization = sigv4.parse_presigned(target)
        skew_seconds = _skew_seconds(authorization)
        self._check_period(authorization, skew_seconds)
        token = authorization.security_token
        if token is None:
            token = headers.get(_TOKEN)
        signed_by = self._judge(authorization, headers, authorization.date, token, skew_seconds)
        payload_hash = headers.get(b"x-amz-content-sha256", authorization.payload_hash)
        if payload_hash is None and signed_by.for_s3:
            payload_hash = sigv4.UNSIGNED_PAYLOAD
        if payload_hash is not None and not _REAL_HASH.fullmatch(payload_hash):
            self._check_without_hash(signed_by.service, payload_hash, secure=secure)
        return Claim(signed_by, authorization.signature.encode("latin-1"), authorization.date, payload_hash)

    def _judge(
        self,
        authorization: sigv4.Authorization,
        headers: dict[bytes, bytes],
        date: bytes,
        token: bytes | None,
        skew_seconds: int,
    ) -> SignedBy:
        """Everything but the time, which the two forms have different rules for."""
        signed_headers = authorization.signed_headers
        if b"host" not in signed_headers:
            raise InvalidSignatureException(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
                fault="headers_not_signed",
                names="host",
            )
        sigv4.check_algorithm(authorization)
        scope = sigv4.parse_credential(authorization.credential)
        self._check_scope(scope, date)
        for_s3 = scope.service == "s3"
        presigned = isinstance(authorization, sigv4.Presigned)
        if for_s3:
            _check_all_signed(headers, signed_headers)
        in_query = isinstance(authorization, sigv4.Presigned) and authorization.security_token is not None
        if token is not None and not in_query and _TOKEN not in signed_headers:
            raise InvalidSignatureException(
                "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.",
                fault="headers_not_signed",
                names=_TOKEN.decode(),
            )
        key = self._find_key(scope.access_key_id, token)
        return SignedBy(
            key,
            scope,
            scope.text.encode("latin-1"),
            scope.service,
            for_s3,
            presigned,
            not (for_s3 or presigned),
            sigv4.CanonicalForm(signed_headers),
            sigv4.Signer(sigv4.signing_key(key.secret_access_key, scope)),
            skew_seconds,
            scope.date.encode("latin-1"),
            token,
            math.inf if key.expires_at is None else key.expires_at,
            self._signers,
        )

    def key_of(self, access_key_id: str, token: str | None) -> AccessKey:
        """The key that a form says to be signed with.

        Raises:
            UnrecognizedClientException, ExpiredTokenException: there is none, or its session has ended.
        """
        return self._find_key(access_key_id, None if token is None else token.encode())

    def _find_key(self, access_key_id: str, token: bytes | None) -> AccessKey:
        """The key that the request says it is signed with: a permanent one, or with a token that of its session."""
        key = self._credentials.get(access_key_id)
        if token is None:
            if key is None:
                raise UnrecognizedClientException(
                    _INVALID_TOKEN, fault="unknown_key", access_key_id=access_key_id
                )
        elif key is not None or self._open_session is None:
            raise _invalid_token()
        else:
            try:
                key = self._open_session(token)
            except UnrecognizedClientException:
                raise _invalid_token() from None
            except ExpiredTokenException:
                raise _expired_token() from None
            if key.access_key_id != access_key_id:
                raise _invalid_token()
        if key.expires_at is not None and self._clock() >= key.expires_at:
            raise _expired_token()
        return key

    def verify(
        self, claim: Claim, method: bytes, target: bytes, headers: dict[bytes, bytes], body_hash: str
    ) -> AccessKey:
        """Compare the signature. `body_hash` is the hex SHA-256 of the body as it arrived; it counts when the
        client declared none, and must agree when the client declared one.

        Raises:
            InvalidSignatureException: it does not match.
            UnrecognizedClientException, ExpiredTokenException: the key was revoked since `claim`.
        """
        if claim.payload_hash is None:
            payload_hash = body_hash.encode()
        else:
            payload_hash = claim.payload_hash
            if claim.declares_real_hash and payload_hash != body_hash.encode():
                raise InvalidSignatureException(
                    "The value of 'x-amz-content-sha256' does not match the SHA-256 of the request's body: "
                    f"it should have been '{body_hash}'.",
                    fault="payload_hash",
                    declared=payload_hash.decode(),
                    computed=body_hash,
                )
        signed_by = claim.signed_by
        canonical_target = self._targets.get(target) if signed_by.plain_target else None
        if canonical_target is None:
            canonical_target = self._canonical_target(target, signed_by)
        path, query = canonical_target
        canonical = signed_by.canonical_form.fill(method, path, query, headers, payload_hash)
        to_sign = sigv4.string_to_sign(claim.timestamp, signed_by.scope_text, canonical)
        if not hmac.compare_digest(signed_by.signer.sign(to_sign), claim.signature):
            raise InvalidSignatureException(
                "The request signature we calculated does not match the signature you provided. Check your "
                "AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n"
                "The Canonical String for this request should have been\n"
                f"'{header_text.decode(canonical)}'\n\n"
                f"The String-to-Sign should have been\n'{header_text.decode(to_sign)}'\n",
                fault="signature",
                access_key_id=signed_by.key.access_key_id,
                string_to_sign=to_sign,
                signature=claim.signature.decode("latin-1"),
                canonical=canonical,
            )
        if signed_by.known is not self._signers:
            if self._find_key(signed_by.key.access_key_id, signed_by.token) != signed_by.key:
                raise _invalid_token()
        elif claim.unseen is not None:
            if len(self._signers) >= _MOST_SIGNERS:
                self._signers.clear()
            self._signers[claim.unseen] = signed_by
        return signed_by.key

    def verify_presigned_v2(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> AccessKey:
        """Who presigned this request to S3 in signature version 2; its signature says nothing of the body.

        Raises:
            IncompleteSignatureException, InvalidSignatureException, UnrecognizedClientException,
            ExpiredTokenException: as for version 4.
        """
        presigned = sigv2.parse(target)
        now = self._clock()
        if now > presigned.expires_at:
            raise InvalidSignatureException(
                "Request has expired.",
                fault="expired",
                lifetime=None,
                expired_at=presigned.expires_at,
                now=now,
            )
        key = self._find_key(presigned.access_key_id, presigned.token or headers.get(_TOKEN))
        to_sign = sigv2.string_to_sign(method, target, headers, presigned)
        if not hmac.compare_digest(sigv2.sign(key.secret_access_key, to_sign), presigned.signature):
            raise InvalidSignatureException(
                "The request signature we calculated does not match the signature you provided.",
                fault="signature",
                access_key_id=presigned.access_key_id,
                string_to_sign=to_sign,
                signature=presigned.signature.decode("latin-1"),
                canonical=None,
            )
        return key

    def _canonical_target(self, target: bytes, signed_by: SignedBy) -> tuple[bytes, bytes]:
        """The canonical path and query. Invocations have few different targets, so those are remembered."""
        path, _, query = target.partition(b"?")
        query = sigv4.canonical_query(query, presigned=signed_by.presigned)
        if signed_by.for_s3:
            return path, query
        canonical = sigv4.canonical_path(path), query
        if signed_by.plain_target and len(target) <= _LONGEST_TARGET:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[target] = canonical
        return canonical

    def _parse_date(self, date: bytes) -> float:
        """Seconds since the epoch. The requests of one second share one parse."""
        cached, timestamp = self._last_date
        if cached != date:
            timestamp = signing_time.parse_date(date)
            self._last_date = (date, timestamp)
        return timestamp

    def _check_fresh(self, date: bytes, skew: int) -> None:
        """Both ends belong to the time in which a signature is good."""
        now = self._clock()
        timestamp = self._parse_date(date)
        if timestamp - now < -skew:
            raise InvalidSignatureException(
                signing_time.signature_expired(date, now, skew),
                fault="not_fresh",
                timestamp=timestamp,
                now=now,
                skew=skew,
            )
        if timestamp - now > skew:
            raise InvalidSignatureException(
                signing_time.signature_not_yet_current(date, now, skew),
                fault="not_fresh",
                timestamp=timestamp,
                now=now,
                skew=skew,
            )

    def _check_period(self, presigned: sigv4.Presigned, skew: int) -> None:
        """A presigned request is good from its date for as long as it says; the clock that dated it may be ahead."""
        now = self._clock()
        timestamp = self._parse_date(presigned.date)
        lifetime = skew if presigned.expires is None else signing_time.parse_expires(presigned.expires)
        if timestamp - now > skew:
            raise InvalidSignatureException(
                signing_time.signature_not_yet_current(presigned.date, now, skew), fault="not_yet"
            )
        if now - timestamp > lifetime or lifetime == 0:
            raise InvalidSignatureException(
                signing_time.signature_expired(presigned.date, now, lifetime),
                fault="expired",
                lifetime=lifetime,
                expired_at=timestamp + lifetime,
                now=now,
            )

    def _check_scope(self, scope: sigv4.CredentialScope, date: bytes) -> None:
        if scope.terminator != "aws4_request":
            raise InvalidSignatureException(
                "Credential should be scoped with a valid terminator: 'aws4_request', "
                f"not '{scope.terminator}'. ",
                fault="credential_terminator",
                terminator=scope.terminator,
            )
        if self._regions is not None and scope.region not in self._regions:
            raise InvalidSignatureException(
                f"Credential should be scoped to a valid region, not '{scope.region}'. ",
                fault="credential_region",
                region=scope.region,
                expected=", ".join(sorted(self._regions)),
            )
        day = date[:8].decode("latin-1")
        if scope.date != day:
            raise InvalidSignatureException(
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{scope.date}' != '{day}', from '{date.decode('latin-1')}'.",
                fault="credential_date",
                date=scope.date,
                day=day,
            )

    def _check_without_hash(self, service: str, declared: bytes, *, secure: bool) -> None:
        """What may stand in `x-amz-content-sha256` instead of a hash. For S3, which has its own ways to protect a
        body, what S3 knows. For invocations nothing protects the body then but TLS."""
        if service == "s3":
            if declared != sigv4.UNSIGNED_PAYLOAD and not declared.startswith(_STREAMING):
                raise MalformedHttpRequestException(
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value.",
                    fault="payload_hash_form",
                    declared=header_text.decode(declared),
                )
        elif declared != sigv4.UNSIGNED_PAYLOAD:
            raise InvalidSignatureException(
                "The value of 'x-amz-content-sha256' must be the SHA-256 of the request's body, in lower-case "
                f"hexadecimal, not '{header_text.decode(declared)}'."
            )
        elif service != "sagemaker" or not (secure or self._allow_unsigned_payload):
            raise InvalidSignatureException(
                "UNSIGNED-PAYLOAD in 'x-amz-content-sha256' is not accepted without TLS: sign the request's body, or "
                "start the server with the setting allow_unsigned_payload."
            )


def is_real_hash(payload_hash: bytes) -> bool:
    """Whether it is a hash, of what an accepted `x-amz-content-sha256` may be."""
    return len(payload_hash) == _SIGNATURE_LENGTH


def _check_all_signed(headers: dict[bytes, bytes], signed: tuple[bytes, ...]) -> None:
    """S3 takes no header of its own that was not signed: any of them can change what the request does."""
    names = [name.decode("latin-1") for name in headers if name.startswith(b"x-amz-") and name not in signed]
    if names:
        raise InvalidSignatureException(
            f"'{names[0]}' must be a 'SignedHeader' in the AWS Authorization.",
            fault="headers_not_signed",
            names=", ".join(names),
        )


def _skew_seconds(authorization: sigv4.Authorization) -> int:
    return S3_SKEW_SECONDS if sigv4.service_of(authorization.credential) == "s3" else SKEW_SECONDS


def _invalid_token() -> UnrecognizedClientException:
    return UnrecognizedClientException(_INVALID_TOKEN, fault="token")


def _expired_token() -> ExpiredTokenException:
    return ExpiredTokenException(
        "The security token included in the request is expired", fault="token_expired"
    )
