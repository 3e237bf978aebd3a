"""Presigned requests in signature version 2: AWS's own example, botocore's signer, and every byte that counts."""

import base64
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from moorage.auth import sigv2
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.errors import (
    FrontLayerError,
    IncompleteSignatureException,
    InvalidSignatureException,
    UnrecognizedClientException,
)

KEY = AccessKey(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    account_id="111122223333",
    principal_arn="arn:aws:iam::111122223333:root",
    user_id="111122223333",
)
NOW = 1175139000.0
# "RESTAuthentication", query string request authentication alternative, in the S3 user guide
EXAMPLE = (
    b"/johnsmith/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE"
    b"&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"
)


def verify(
    target: bytes, *, method: bytes = b"GET", headers: dict[bytes, bytes] | None = None, now: float = NOW
) -> AccessKey:
    verifier = Verifier({KEY.access_key_id: KEY}, clock=lambda: now)
    return verifier.verify_presigned_v2(method, target, headers or {})


def test_the_example_of_the_documentation() -> None:
    assert sigv2.is_presigned(EXAMPLE)
    assert verify(EXAMPLE) == KEY
    assert sigv2.without_signature(EXAMPLE) == b"/johnsmith/photos/puppy.jpg"


def test_it_ends_to_the_second() -> None:
    assert verify(EXAMPLE, now=1175139620.0) == KEY
    with pytest.raises(InvalidSignatureException) as expired:
        verify(EXAMPLE, now=1175139620.001)
    assert expired.value.fault == "expired"


def mutations(target: bytes) -> Iterator[bytes]:
    for at in range(len(target)):
        yield target[:at] + bytes([target[at] ^ 1]) + target[at + 1 :]


@pytest.mark.parametrize("target", [*mutations(EXAMPLE)])
def test_no_byte_can_be_another(target: bytes) -> None:
    signature = EXAMPLE.partition(b"Signature=")[2].partition(b"&")[0]
    same_bytes = target.replace(b"%2b", b"%2B").replace(b"%3d", b"%3D")
    assert signature not in target or target != EXAMPLE
    if sigv2.is_presigned(target) and same_bytes != EXAMPLE:
        with pytest.raises(FrontLayerError):
            verify(target)


@pytest.mark.parametrize(
    "change",
    [
        {"method": b"PUT"},
        {"headers": {b"content-type": b"text/plain"}},
        {"headers": {b"content-md5": b"AAAA"}},
        {"headers": {b"x-amz-acl": b"public-read"}},
        {"target": EXAMPLE + b"&acl"},
        {"target": EXAMPLE + b"&versionId=3"},
        {"target": EXAMPLE + b"&x-amz-acl=public-read"},
        {"target": EXAMPLE + b"&%74agging"},
        {"target": EXAMPLE + b"&policyStatus"},
        {"target": EXAMPLE + b"&x%2Damz-copy-source=another/object"},
        {"target": EXAMPLE + b"&Content-Type=text/html"},
        {"target": EXAMPLE.replace(b"puppy", b"kitty")},
        {"target": EXAMPLE.replace(b"1175139620", b"1175139621")},
    ],
    ids=str,
)
def test_what_is_signed_cannot_be_changed(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSignatureException) as refused:
        verify(**{"target": EXAMPLE, **change})
    assert refused.value.fault == "signature"


@pytest.mark.parametrize(
    ("change", "error", "fault"),
    [
        (lambda t: t.replace(b"&Expires=1175139620", b""), IncompleteSignatureException, "missing_v2"),
        (lambda t: t + b"&Expires=1175139620", IncompleteSignatureException, "missing_v2"),
        (lambda t: t + b"&AWSAccessKeyId=x", IncompleteSignatureException, "missing_v2"),
        (lambda t: t + b"&%45xpires=1275139620", IncompleteSignatureException, "missing_v2"),
        (lambda t: t.replace(b"1175139620", b"soon"), IncompleteSignatureException, "expires_epoch"),
        (lambda t: t.replace(b"1175139620", b"-1"), IncompleteSignatureException, "expires_epoch"),
        (lambda t: t.replace(b"1175139620", b"1"), InvalidSignatureException, "expired"),
        (lambda t: t.replace(b"IOSFODNN7", b"IOSFODNN8"), UnrecognizedClientException, "unknown_key"),
        (lambda t: t + b"&x-amz-security-token=t", UnrecognizedClientException, "token"),
    ],
)
def test_what_is_wrong_is_told(
    change: Callable[[bytes], bytes], error: type[FrontLayerError], fault: str
) -> None:
    with pytest.raises(error) as refused:
        verify(change(EXAMPLE))
    assert refused.value.fault == fault


paths = st.text(
    st.characters(codec="utf-8", exclude_characters="?#\\", exclude_categories=["C"]), max_size=20
)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)


@given(
    path=paths,
    query=st.dictionaries(
        st.sampled_from(["versionId", "uploadId", "partNumber", "response-content-type", "prefix", "acl"]),
        values,
    ),
    headers=st.dictionaries(st.sampled_from(["x-amz-acl", "x-amz-meta-a", "content-type"]), values),
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE"]),
)
def test_what_botocore_signs_is_good(
    path: str, query: dict[str, str], headers: dict[str, str], method: str
) -> None:
    request = AWSRequest(
        method, f"http://127.0.0.1/b/{path}".strip(), params=query, headers=dict(headers)
    ).prepare()
    signed = AWSRequest(method, request.url, headers=dict(headers))
    HmacV1QueryAuth(Credentials(KEY.access_key_id, KEY.secret_access_key), expires=60).add_auth(signed)
    parts = urlsplit(signed.url)
    target = f"{parts.path}?{parts.query}".encode()
    sent = {name.encode(): value.strip().encode() for name, value in headers.items()}
    expires_at = sigv2.parse(target).expires_at
    assert verify(target, method=method.encode(), headers=sent, now=expires_at - 1) == KEY


def test_a_signature_is_one_of_sha1() -> None:
    assert len(base64.b64decode(sigv2.sign("secret", b"text"))) == 20
