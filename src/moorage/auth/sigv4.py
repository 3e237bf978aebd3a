"""Signature Version 4 as pure functions on bytes: parse, canonicalise, derive, sign. No clock, no keys kept.

The verifier must rebuild exactly what the client signed, so nothing here normalises by taste. The rules that
are easy to get wrong:

* The canonical path is the *raw* request target's path (still percent-encoded), without dot segments and empty
  segments, percent-encoded once more. S3 alone takes the raw path as it is.
* Exactly the headers named in `SignedHeaders` count, none is skipped by a list of ours: older Java clients sign
  `user-agent`, newer ones leave it out.
* The payload hash is the value of `x-amz-content-sha256` if there is one, else the hash of the body.
* A presigned request has the same parameters in its query, and all of them but the signature itself are signed.

Sources: botocore's signer (`botocore.auth`); the public test suite that botocore's source distribution carries.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from moorage.errors import IncompleteSignatureException, MissingAuthenticationTokenException

ALGORITHM: Final[str] = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final[bytes] = b"UNSIGNED-PAYLOAD"
EMPTY_SHA256: Final[str] = hashlib.sha256(b"").hexdigest()

_IN_QUERY = re.compile(rb"[?&]X-Amz-(?:Algorithm|Credential|Date|Expires|SignedHeaders|Signature)=")
_REQUIRED_IN_QUERY = ("Algorithm", "Credential", "Signature", "SignedHeaders", "Date")
_QUERY_PARAMETERS = frozenset(
    f"X-Amz-{name}".encode() for name in (*_REQUIRED_IN_QUERY, "Expires", "Security-Token", "Content-Sha256")
)
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*/?\Z")
"""A path that canonicalises to itself: no escapes, no segment that is empty or begins with a dot."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parameters of an `Authorization: AWS4-HMAC-SHA256 …` header, taken apart but not judged."""

    algorithm: str
    credential: str
    signed_headers: tuple[bytes, ...]
    signature: str


@dataclass(frozen=True, slots=True)
class Presigned(Authorization):
    """The same of a presigned request's query."""

    date: bytes
    expires: str | None
    security_token: bytes | None
    payload_hash: bytes | None


@dataclass(frozen=True, slots=True)
class CredentialScope:
    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str

    @property
    def text(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{self.terminator}"


def parse_authorization(header: bytes, *, has_date: bool) -> Authorization:
    """Take the header apart.

    Raises:
        IncompleteSignatureException: parameters are missing or malformed, in the words of AWS's front layer
            as captured from the real services.
    """
    text = header.decode("latin-1")
    algorithm, _, rest = text.partition(" ")
    parameters: dict[str, str] = {}
    for item in rest.split(","):
        key, equals, value = item.strip().partition("=")
        if not equals:
            raise IncompleteSignatureException(
                f"'{item.strip()}' not a valid key=value pair (missing equal-sign) "
                f"in Authorization header: '{text}'.",
                fault="component",
                authorization=text,
                component=item.strip(),
            )
        parameters[key] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parameters.get(name)]
    wrong = [f"Authorization header requires '{name}' parameter." for name in missing]
    if not has_date:
        wrong.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if wrong:
        raise IncompleteSignatureException(
            f"{' '.join(wrong)} Authorization={text}",
            fault="missing" if missing else "date",
            missing=missing,
            given=len(parameters),
        )
    return Authorization(
        algorithm=algorithm,
        credential=parameters["Credential"],
        signed_headers=tuple(parameters["SignedHeaders"].lower().encode("latin-1").split(b";")),
        signature=parameters["Signature"],
    )


def is_presigned(target: bytes) -> bool:
    """Whether the query has any of the parameters that make up a signature."""
    return _IN_QUERY.search(target) is not None


def parse_presigned(target: bytes) -> Presigned:
    """Take the query of a presigned request apart. Of a parameter that is repeated, the first counts.

    Raises:
        MissingAuthenticationTokenException: it names no algorithm, which is what tells that it is presigned.
        IncompleteSignatureException: parameters are missing.
    """
    parameters: dict[str, str] = {}
    for name, value in _split_query(target.partition(b"?")[2]):
        if name in _QUERY_PARAMETERS:
            parameters.setdefault(name.decode()[6:], unquote(value.decode("latin-1"), encoding="latin-1"))
    credential = parameters.get("Credential", "")
    for_s3 = service_of(credential) == "s3"
    if "Algorithm" not in parameters and not for_s3:
        raise MissingAuthenticationTokenException("Missing Authentication Token")
    required = (*_REQUIRED_IN_QUERY, "Expires") if for_s3 else _REQUIRED_IN_QUERY
    missing = [name for name in required if not parameters.get(name)]
    if missing:
        sentences = [f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing]
        raise IncompleteSignatureException(
            f"{' '.join(sentences)} Re-examine the query-string parameters.", fault="missing"
        )
    token, payload_hash = parameters.get("Security-Token"), parameters.get("Content-Sha256")
    return Presigned(
        algorithm=parameters["Algorithm"],
        credential=credential,
        signed_headers=tuple(parameters["SignedHeaders"].lower().encode("latin-1").split(b";")),
        signature=parameters["Signature"],
        date=parameters["Date"].encode("latin-1"),
        expires=parameters.get("Expires"),
        security_token=None if token is None else token.encode("latin-1"),
        payload_hash=None if payload_hash is None else payload_hash.encode("latin-1"),
    )


def without_signature(target: bytes) -> bytes:
    """The target of a presigned request without what was added to it to sign it."""
    path, _, query = target.partition(b"?")
    rest = [pair for pair in query.split(b"&") if pair.partition(b"=")[0] not in _QUERY_PARAMETERS]
    return path + b"?" + b"&".join(rest) if rest else path


def service_of(credential: str) -> str | None:
    """The service that a credential is scoped to, as far as it can be told from a malformed one."""
    parts = credential.split("/", 4)
    return parts[3] if len(parts) > 3 else None


def claimed_service(authorization: bytes, target: bytes) -> str | None:
    """The service that a request says to be signed for, whether or not its signature is any good."""
    credential = claimed_credential(authorization, target)
    return None if credential is None else service_of(credential)


def claimed_credential(authorization: bytes, target: bytes) -> str | None:
    """The same for the whole credential, which need not have the form of one."""
    match = _CREDENTIAL.search(authorization) if authorization else _QUERY_CREDENTIAL.search(target)
    return None if match is None else unquote(match[1].decode("latin-1"), encoding="latin-1")


_CREDENTIAL = re.compile(rb"[ ,]Credential=([^,]*)")
_QUERY_CREDENTIAL = re.compile(rb"[?&]X-Amz-Credential=([^&]*)")


def check_algorithm(authorization: Authorization) -> None:
    """Raises `IncompleteSignatureException` for any but the one algorithm."""
    if authorization.algorithm != ALGORITHM:
        raise IncompleteSignatureException(
            f"Unsupported AWS 'algorithm': '{authorization.algorithm}' (only AWS4-HMAC-SHA256 for now). ",
            fault="algorithm",
            algorithm=authorization.algorithm,
        )


def parse_credential(credential: str) -> CredentialScope:
    """`keyid/date/region/service/aws4_request` → its parts.

    Raises:
        IncompleteSignatureException: not five parts.
    """
    parts = credential.split("/")
    if len(parts) != 5:
        raise IncompleteSignatureException(
            "Credential must have exactly 5 slash-delimited elements, "
            f"e.g. keyid/date/region/service/term, got '{credential}'",
            fault="credential_form",
        )
    return CredentialScope(*parts)


def canonical_path(raw_path: bytes) -> bytes:
    """The path of every service but S3: normalised, then percent-encoded again."""
    if _PLAIN_PATH.match(raw_path):
        return raw_path or b"/"
    segments: list[bytes] = []
    for segment in raw_path.split(b"/"):
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    path = b"/" + b"/".join(segments)
    if segments and raw_path.endswith(b"/"):
        path += b"/"
    return quote(path, safe="/~").encode()


def canonical_query(raw_query: bytes, *, presigned: bool = False) -> bytes:
    """Parameters sorted by name then value, each with its `=`. Clients have encoded them already. The signature of a
    presigned request is no part of what it signs."""
    if not raw_query:
        return b""
    pairs = sorted(_split_query(raw_query))
    if presigned:
        pairs = [pair for pair in pairs if pair[0] != b"X-Amz-Signature"]
    return b"&".join(name + b"=" + value for name, value in pairs)


def _split_query(raw_query: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, _, value in (pair.partition(b"=") for pair in raw_query.split(b"&"))]


class CanonicalForm:
    """What all canonical requests over the same signed headers have in common: a format, made once."""

    __slots__ = ("_format", "names")

    def __init__(self, signed_headers: tuple[bytes, ...]) -> None:
        names = [name.replace(b"%", b"%%") for name in signed_headers]
        values = (name + b":%b" for name in names)
        self.names = signed_headers
        self._format = b"\n".join((b"%b\n%b\n%b", *values, b"", b";".join(names), b"%b"))

    def fill(
        self, method: bytes, path: bytes, query: bytes, headers: dict[bytes, bytes], payload_hash: bytes
    ) -> bytes:
        """The canonical request. `path` and `query` are canonical; `headers` has lower-case names, and the values of
        a repeated header joined by commas. A signed header that is absent counts as empty, and so fails."""
        values = [method, path, query]
        for name in self.names:
            words = headers.get(name, b"").split()
            values.append(words[0] if len(words) == 1 else b" ".join(words))
        values.append(payload_hash)
        return self._format % tuple(values)


def string_to_sign(timestamp: bytes, scope: bytes, canonical: bytes) -> bytes:
    digest = hashlib.sha256(canonical).hexdigest().encode()
    return b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (timestamp, scope, digest)


def signing_key(secret_access_key: str, scope: CredentialScope) -> bytes:
    """Depends on the secret, day, region and service only, so it can be kept for the day."""
    key = b"AWS4" + secret_access_key.encode()
    for part in (scope.date, scope.region, scope.service, scope.terminator):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class Signer:
    """HMAC-SHA-256 with one key (RFC 2104). Both hashes are begun once, with the key's block, and copied for each
    signature: that takes less than half the time of `hmac.digest`, which begins them anew."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def sign(self, message: bytes) -> bytes:
        """The signature in lower-case hex."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest().encode()


_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
