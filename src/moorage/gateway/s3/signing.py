"""A request to the embedded S3, made anew and signed for the account that it is made for.

The S3 knows accounts, not callers: what a caller may do has been decided. It verifies each signature all the same,
and refuses an account another's buckets, so that a fault in a decision does not cross accounts.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from moorage.auth import sigv4
from moorage.gateway.s3.reading import CopySource, S3Request
from moorage.storage.s3_accounts import REGION, S3Accounts

_MOST_ACCOUNTS: Final = 4096


class S3Signer:
    """Signs for accounts. Their signing keys are kept for the day that they are good for."""

    def __init__(self, accounts: S3Accounts, *, clock: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._clock = clock
        self._day = ""
        self._scopes: dict[str, tuple[sigv4.CredentialScope, sigv4.Signer]] = {}

    def head(
        self,
        account_id: str,
        method: bytes,
        target: tuple[bytes, bytes],
        headers: Mapping[bytes, bytes],
        *,
        payload_hash: bytes = sigv4.UNSIGNED_PAYLOAD,
        framing: bytes,
    ) -> bytes:
        """The head of a request, whose `host` is among the headers. `target` is the canonical path and query;
        `framing` are the header lines that say how long the body is, which no signature covers."""
        now = time.gmtime(self._clock())
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", now).encode()
        scope, signer = self._scope(account_id, timestamp[:8].decode())
        path, query = target
        signed = {
            **headers,
            b"x-amz-content-sha256": payload_hash,
            b"x-amz-date": timestamp,
        }
        names = tuple(sorted(signed))
        canonical = sigv4.CanonicalForm(names).fill(method, path, query, signed, payload_hash)
        signature = signer.sign(sigv4.string_to_sign(timestamp, scope.text.encode(), canonical))
        authorization = b"AWS4-HMAC-SHA256 Credential=%b/%b,SignedHeaders=%b,Signature=%b" % (
            scope.access_key_id.encode(),
            scope.text.encode(),
            b";".join(names),
            signature,
        )
        lines = [b"%b: %b\r\n" % item for item in signed.items()]
        whole = path + b"?" + query if query else path
        return b"%b %b HTTP/1.1\r\n%bauthorization: %b\r\n%b\r\n" % (
            method,
            whole,
            b"".join(lines),
            authorization,
            framing,
        )

    def policy_fields(self, account_id: str, policy: bytes) -> dict[str, str]:
        """The fields by which a form is signed whose policy, in base64, this is."""
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        scope, signer = self._scope(account_id, timestamp[:8])
        return {
            "policy": policy.decode(),
            "x-amz-algorithm": sigv4.ALGORITHM,
            "x-amz-credential": f"{scope.access_key_id}/{scope.text}",
            "x-amz-date": timestamp,
            "x-amz-signature": signer.sign(policy).decode(),
        }

    def _scope(self, account_id: str, day: str) -> tuple[sigv4.CredentialScope, sigv4.Signer]:
        if day != self._day or len(self._scopes) >= _MOST_ACCOUNTS:
            self._day = day
            self._scopes = {}
        known = self._scopes.get(account_id)
        if known is None:
            scope = sigv4.CredentialScope(account_id, day, REGION, "s3", "aws4_request")
            key = sigv4.signing_key(self._accounts.secret_of(account_id), scope)
            known = self._scopes[account_id] = scope, sigv4.Signer(key)
        return known


def target_of(request: S3Request) -> tuple[bytes, bytes]:
    """The canonical path and query: what the S3 reads is what was read here."""
    path = f"/{request.bucket}/{request.key}" if request.key else f"/{request.bucket}"
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in request.query.items())
    return quote(path, safe="/-_.~").encode(), "&".join(f"{name}={value}" for name, value in pairs).encode()


def source_header(source: CopySource) -> bytes:
    """`x-amz-copy-source`, encoded so that nothing of it can be read in another way."""
    version = f"?versionId={_quoted(source.version_id)}" if source.version_id is not None else ""
    return (quote(f"{source.bucket}/{source.key}", safe="/-_.~") + version).encode()


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
