"""Presigned requests to S3 in signature version 2, which boto3 still makes by default. Pure functions on bytes.

Source: "Signing and authenticating REST requests (AWS signature version 2)", in the S3 user guide. The header form of
this version is not accepted anywhere, and neither form outside S3.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from moorage.errors import IncompleteSignatureException

_TOKEN = b"x-amz-security-token"
_ADDED = frozenset((b"AWSAccessKeyId", b"Signature", b"Expires", _TOKEN))
_SUBRESOURCES = frozenset(
    (
        b"accelerate",
        b"acl",
        b"attributes",
        b"cors",
        b"defaultObjectAcl",
        b"delete",
        b"lifecycle",
        b"location",
        b"logging",
        b"notification",
        b"partNumber",
        b"policy",
        b"policyStatus",
        b"replication",
        b"requestPayment",
        b"response-cache-control",
        b"response-content-disposition",
        b"response-content-encoding",
        b"response-content-language",
        b"response-content-type",
        b"response-expires",
        b"restore",
        b"storageClass",
        b"tagging",
        b"torrent",
        b"uploadId",
        b"uploads",
        b"versionId",
        b"versioning",
        b"versions",
        b"website",
    )
)
"""The parameters of a query that say what a request is about, and so are signed with the path. Clients leave out
`attributes` and `policyStatus`, which are here so that nobody adds them to a URL."""

_OF_BODY = (b"content-md5", b"content-type")
_SECONDS = re.compile(rb"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class PresignedV2:
    """What the query of such a request says. `expires_at` is in seconds since the epoch."""

    access_key_id: str
    signature: bytes
    expires: bytes
    token: bytes | None = field(repr=False)
    parameters: Mapping[bytes, bytes] = field(repr=False)

    @property
    def expires_at(self) -> int:
        return int(self.expires)


def is_presigned(target: bytes) -> bool:
    return b"AWSAccessKeyId=" in target and b"Signature=" in target


def parse(target: bytes) -> PresignedV2:
    """Take the query apart.

    Raises:
        IncompleteSignatureException: a part of the signature is missing, is given twice, or is no time.
    """
    pairs = [(name, unquote_to_bytes(value)) for name, _, value in _pairs(target)]
    parameters = {name.lower() if name.lower() in _OF_BODY else name: value for name, value in pairs}
    for required in (b"AWSAccessKeyId", b"Signature", b"Expires"):
        if sum(name == required for name, _ in pairs) != 1:
            raise IncompleteSignatureException(
                "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
                fault="missing_v2",
            )
    expires = parameters[b"Expires"]
    if not _SECONDS.fullmatch(expires):
        raise IncompleteSignatureException(
            "Invalid date (should be seconds since epoch)",
            fault="expires_epoch",
            expires=expires.decode("latin-1"),
        )
    return PresignedV2(
        parameters[b"AWSAccessKeyId"].decode("latin-1"),
        parameters[b"Signature"],
        expires,
        parameters.get(_TOKEN),
        parameters,
    )


def string_to_sign(
    method: bytes, target: bytes, headers: dict[bytes, bytes], presigned: PresignedV2
) -> bytes:
    """What the signature is over: method, body's type, expiry, each `x-amz-` header or parameter, the resource."""
    parameters = presigned.parameters
    amz = {name.lower(): value for name, value in parameters.items() if name.lower().startswith(b"x-amz-")}
    amz |= {name: value for name, value in headers.items() if name.startswith(b"x-amz-")}
    amz_lines = [b"%b:%b\n" % (name, amz[name].strip()) for name in sorted(amz)]
    body = [headers.get(name, parameters.get(name, b"")) for name in _OF_BODY]
    return b"\n".join((method, *body, presigned.expires, b"".join(amz_lines) + _resource(target)))


def sign(secret_access_key: str, to_sign: bytes) -> bytes:
    return base64.b64encode(hmac.digest(secret_access_key.encode(), to_sign, hashlib.sha1))


def without_signature(target: bytes) -> bytes:
    """The target without what was added to it to sign it."""
    path, _, query = target.partition(b"?")
    rest = [pair for pair in query.split(b"&") if unquote_to_bytes(pair.partition(b"=")[0]) not in _ADDED]
    return path + b"?" + b"&".join(rest) if rest else path


def _pairs(target: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The parameters of the query as name, equals sign and value, which is as it came. A name counts as what it says,
    however it is written: `%74agging` is `tagging` to whatever runs the request."""
    pairs = (pair.partition(b"=") for pair in target.partition(b"?")[2].split(b"&") if pair)
    return [(unquote_to_bytes(name), equals, value) for name, equals, value in pairs]


def _resource(target: bytes) -> bytes:
    """A plus sign stays one, as clients that sign it write a space as `%20`."""
    path = target.partition(b"?")[0]
    named = [
        name + equals + unquote_to_bytes(value)
        for name, equals, value in sorted(_pairs(target))
        if name in _SUBRESOURCES
    ]
    if b"/" not in path[1:] and len(path) > 1:
        path += b"/"  # a bucket, which clients may name either way
    return path + b"?" + b"&".join(named) if named else path
