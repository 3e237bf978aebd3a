"""AWS's public suite through the verifier, in both forms of a signature; and its requests with each byte changed.

What a change does to the canonical request is told by botocore, not by us: what still is the same request must be
accepted, anything else refused.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from unittest import mock

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.auth import sigv4
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.errors import FrontLayerError
from tests.auth.test_sigv4 import CASES, NOT_RUN, SECRET, Case

KEY = AccessKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key=SECRET,
    account_id="123456789012",
    principal_arn="arn:aws:iam::123456789012:root",
    user_id="123456789012",
)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
RUN = [name for name in CASES if name not in NOT_RUN]
TOKEN_NOT_SIGNED = "post-sts-token/post-sts-header-after"
"""Its token is put in after the signature was made. Few services take that; this one does not."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request as it arrives."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes

    @cached_property
    def authorization(self) -> sigv4.Authorization:
        if b"authorization" in self.headers:
            return sigv4.parse_authorization(self.headers[b"authorization"], has_date=True)
        return sigv4.parse_presigned(self.target)

    def is_accepted(self) -> bool:
        with_token = b"x-amz-security-token" in self.headers or b"X-Amz-Security-Token=" in self.target
        verifier = Verifier(
            {} if with_token else {KEY.access_key_id: KEY},
            open_session=lambda token: KEY,
            regions=frozenset(("us-east-1",)),
            clock=NOW.timestamp,
        )
        try:
            claim = verifier.claim(self.headers, self.target)
            digest = hashlib.sha256(self.body).hexdigest()
            return verifier.verify(claim, self.method, self.target, self.headers, digest) is KEY
        except FrontLayerError:
            return False

    def canonical_by_botocore(self) -> str:
        """Of the headers that the original signed."""
        path, _, query = self.target.decode().partition("?")
        pairs = [pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature=")]
        url = f"http://example.amazonaws.com{path}" + (f"?{'&'.join(pairs)}" if query else "")
        request = AWSRequest(self.method.decode("latin-1"), url, data=self.body)
        for name in self.authorization.signed_headers:
            request.headers[name.decode()] = self.headers.get(name, b"").decode("latin-1")
        signer = SigV4Auth(Credentials(KEY.access_key_id, SECRET), "service", "us-east-1")
        with mock.patch.object(signer, "headers_to_sign", lambda request: request.headers):
            return str(signer.canonical_request(request))


def as_signed(name: str) -> Sent:
    case = Case(name)
    headers = {**case.headers, b"authorization": case.read("authz").strip()}
    return Sent(method=case.method, target=case.target, headers=headers, body=case.body)


class KeepsTheBody(SigV4QueryAuth):
    """As botocore presigns, except that it does not try to move a body into the query."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        body, request.data = request.data, ""
        super()._modify_request_before_signing(request)
        request.data = body


def as_presigned(name: str) -> Sent:
    case = Case(name)
    given = {
        key: value
        for key, value in case.headers.items()
        if key != b"authorization" and not key.startswith(b"x-amz-")
    }
    token = case.headers.get(b"x-amz-security-token")
    url = "http://example.amazonaws.com" + case.target.decode()
    request = AWSRequest(case.method.decode(), url, data=case.body)
    for key, value in given.items():
        request.headers[key.decode()] = value.decode("latin-1")
    credentials = Credentials(KEY.access_key_id, SECRET, token.decode() if token else None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW):
        KeepsTheBody(credentials, "service", "us-east-1", expires=60).add_auth(request)
    target = request.url.removeprefix("http://example.amazonaws.com").encode()
    return Sent(method=case.method, target=target, headers=given, body=case.body)


@pytest.mark.parametrize("name", [name for name in RUN if name != TOKEN_NOT_SIGNED])
def test_a_case_is_accepted(name: str) -> None:
    assert as_signed(name).is_accepted()


def test_a_token_that_is_not_signed_is_refused() -> None:
    sent = as_signed(TOKEN_NOT_SIGNED)
    assert not sent.is_accepted()
    del sent.headers[b"x-amz-security-token"]
    assert sent.is_accepted()


@pytest.mark.parametrize("name", RUN)
def test_a_case_is_accepted_presigned(name: str) -> None:
    assert as_presigned(name).is_accepted()


# --- each byte -------------------------------------------------------------------------------------------------


def others(byte: int) -> list[int]:
    """Bytes to put in the place of one: a near one, one that is far, and a space."""
    near = byte ^ 1
    safe = chr(near).isalnum() or chr(near) in "-._~"
    return [each for each in ([near] if safe else []) + [ord("x"), ord("X"), ord(" ")] if each != byte]


def changes(value: bytes, *, spaces: bool = False) -> Iterator[bytes]:
    for at, byte in enumerate(value):
        for other in others(byte):
            if spaces or other != ord(" "):
                yield value[:at] + bytes([other]) + value[at + 1 :]
        if spaces:
            yield value[:at] + b" " + value[at:]


def changed(sent: Sent) -> Iterator[tuple[str, Sent]]:
    """The request with one byte of what is signed changed, in every place."""
    for method in changes(sent.method):
        yield "method", replace(sent, method=method)
    for target in changes(sent.target):
        if target.startswith(b"/"):
            yield "target", replace(sent, target=target)
    for body in changes(sent.body, spaces=True):
        yield "body", replace(sent, body=body)
    for name in sent.authorization.signed_headers:
        for value in changes(sent.headers[name], spaces=True):
            yield f"header {name.decode()}", replace(sent, headers={**sent.headers, name: value})


@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
@pytest.mark.parametrize("name", [name for name in RUN if name != TOKEN_NOT_SIGNED])
def test_every_byte_of_what_is_signed_counts(name: str, *, presigned: bool) -> None:
    sent = as_presigned(name) if presigned else as_signed(name)
    canonical = sent.canonical_by_botocore()
    if not presigned:
        assert canonical == Case(name).read("creq").decode("latin-1")
    refused = 0
    for part, other in changed(sent):
        same_signature = not presigned or other.target.endswith(sent.target[-64:])
        try:
            same = same_signature and other.canonical_by_botocore() == canonical
        except (FrontLayerError, UnicodeDecodeError):
            same = False  # not even a signature any more, or no text
        if part == "header x-amz-date":
            same = same and other.headers[b"x-amz-date"] == sent.headers[b"x-amz-date"]
        assert other.is_accepted() is same, (part, other)
        refused += not same
    assert refused >= len(sent.method) + len(sent.headers[b"host"])


@pytest.mark.parametrize("name", [name for name in RUN if name != TOKEN_NOT_SIGNED])
def test_every_byte_of_the_authorization_header_counts(name: str) -> None:
    """The algorithm, the credential with its scope, the names of the signed headers and the signature."""
    sent = as_signed(name)
    header = sent.headers[b"authorization"]
    before, _, rest = header.partition(b"SignedHeaders=")
    for value in changes(header):
        if (
            value.startswith(before + b"SignedHeaders=")
            and value.endswith(rest[-66:])
            and value.lower() == header.lower()
        ):
            continue  # the names of headers mean the same in capitals
        assert not replace(sent, headers={**sent.headers, b"authorization": value}).is_accepted(), value
    for value in (header[:-1], header + b"0", header.upper(), header.replace(b"Signature=", b"Signature=0")):
        assert not replace(sent, headers={**sent.headers, b"authorization": value}).is_accepted(), value
