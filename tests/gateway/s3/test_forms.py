"""Uploads from HTML forms: the form, its policy, its signature."""

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from moorage.auth.verifier import Verifier
from moorage.errors import S3Error, ServiceError
from moorage.gateway.s3.forms import check_policy, policy_for, read_head, render_head, verify
from tests.gateway.harness import KEY, ContainerConnection, Gateway

NOW = datetime(2026, 12, 1, tzinfo=UTC)
LATER = "2026-12-01T01:00:00.000Z"
BOUNDARY = b"----a boundary"


def encoded(*conditions: Any, expiration: Any = LATER, **more: Any) -> str:
    return base64.b64encode(
        json.dumps({"expiration": expiration, "conditions": list(conditions), **more}).encode()
    ).decode()


# --- the policy ----------------------------------------------------------------------------------------

FIELDS = {"bucket": "b", "key": "a/b", "content-type": "text/plain", "policy": "x", "x-amz-signature": "x"}
COVERED = ({"bucket": "b"}, ["starts-with", "$key", "a/"], ["eq", "$Content-Type", "text/plain"])


def test_a_policy_that_the_fields_keep() -> None:
    assert check_policy(encoded(*COVERED), FIELDS, NOW) == (0, 5 * 1024**3)
    sizes = (["content-length-range", 1, "10"], ["content-length-range", 0, 100])
    assert check_policy(encoded(*COVERED, *sizes), FIELDS, NOW) == (1, 10)
    assert check_policy(encoded(*COVERED), {**FIELDS, "x-ignore-this": "x"}, NOW)


@pytest.mark.parametrize(
    ("conditions", "fields", "message"),
    [
        (COVERED[:2], {}, "Extra input fields: content-type"),
        (COVERED, {"x-amz-meta-a": "1"}, "Extra input fields: x-amz-meta-a"),
        (COVERED, {"bucket": "c"}, 'Policy Condition failed: ["eq", "$bucket", "b"]'),
        (COVERED, {"key": "b/a"}, 'Policy Condition failed: ["starts-with", "$key", "a/"]'),
        ((*COVERED, {"x-amz-meta-a": "1"}), {}, 'Policy Condition failed: ["eq", "$x-amz-meta-a", "1"]'),
    ],
)
def test_a_policy_that_they_do_not_keep(
    conditions: tuple[Any, ...], fields: Mapping[str, str], message: str
) -> None:
    with pytest.raises(S3Error) as refused:
        check_policy(encoded(*conditions), {**FIELDS, **fields}, NOW)
    assert (refused.value.code, refused.value.status) == ("AccessDenied", 403)
    assert refused.value.message == f"Invalid according to Policy: {message}"


def test_a_policy_that_is_over() -> None:
    with pytest.raises(S3Error, match="Policy expired"):
        check_policy(encoded(*COVERED, expiration="2026-12-01T00:00:00Z"), FIELDS, NOW)


@pytest.mark.parametrize(
    "policy",
    [
        "no base64",
        base64.b64encode(b"no JSON").decode(),
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b"[" * 100_000).decode(),
        encoded(expiration=None),
        encoded(expiration="2026-12-01 01:00:00"),
        encoded(expiration="2026-13-01T01:00:00Z"),
        base64.b64encode(json.dumps({"expiration": LATER}).encode()).decode(),
        encoded("a condition"),
        encoded({"a": "1", "b": "2"}),
        encoded({"a": 1}),
        encoded(["eq", "key", "a"]),
        encoded(["ends-with", "$key", "a"]),
        encoded(["eq", "$key"]),
        encoded(["content-length-range", "a", 1]),
        encoded(["content-length-range", -1, 1]),
    ],
)
def test_what_is_no_policy(policy: str) -> None:
    with pytest.raises(S3Error) as refused:
        check_policy(policy, FIELDS, NOW)
    assert (refused.value.code, refused.value.status) == ("InvalidPolicyDocument", 400)


def test_the_policy_of_a_relayed_form_is_kept_by_its_fields() -> None:
    fields = {"key": "a", "content-type": "x"}
    signed = {f"x-amz-{name}": "x" for name in ("algorithm", "credential", "date", "signature")}
    policy = policy_for("b", fields, (3, 7), NOW).decode()
    assert check_policy(policy, {**fields, **signed, "bucket": "b"}, NOW) == (3, 7)
    with pytest.raises(S3Error):
        check_policy(policy, {**fields, "bucket": "b", "key": "other"}, NOW)


# --- the signature -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "AccessDenied"),
        ({"policy": "x"}, "AccessDenied"),
        ({"policy": "x", "awsaccesskeyid": KEY.access_key_id}, "InvalidArgument"),
        ({"policy": "x", "signature": "x"}, "InvalidArgument"),
        ({"policy": "x", "awsaccesskeyid": KEY.access_key_id, "signature": "é"}, "SignatureDoesNotMatch"),
        ({"policy": "x", "awsaccesskeyid": "unknown", "signature": "x"}, "UnrecognizedClientException"),
        ({"policy": "x", "x-amz-signature": "x"}, "InvalidArgument"),
        (
            {
                "policy": "x",
                "x-amz-algorithm": "AWS4-HMAC-SHA256",
                "x-amz-credential": f"{KEY.access_key_id}/20261201/us-east-1/sagemaker/aws4_request",
                "x-amz-date": "20261201T000000Z",
                "x-amz-signature": "x",
            },
            "InvalidArgument",
        ),
    ],
)
def test_a_form_that_nobody_has_signed(fields: Mapping[str, str], code: str) -> None:
    with pytest.raises(ServiceError) as refused:
        verify(Verifier({KEY.access_key_id: KEY}), fields)
    assert refused.value.code == code


# --- the form ------------------------------------------------------------------------------------------


def form(*parts: tuple[bytes, bytes], boundary: bytes = BOUNDARY) -> bytes:
    lines = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary, *part) for part in parts
    ]
    return b"".join(lines) + b"--%b--\r\n" % boundary


WHOLE = form(
    (b'name="Key"', b"a\r\nb"),
    (b'name="x-amz-meta-a"', b"1"),
    (b'name="x-amz-meta-a"', b"2"),
    (b'name="file"; filename="f.txt"', b"content"),
)


def test_a_form_is_read_once_its_file_begins() -> None:
    head = read_head(WHOLE, BOUNDARY)
    assert head is not None
    assert head.fields == {"key": "a\r\nb", "x-amz-meta-a": "1,2"}
    assert WHOLE[head.length :] == b"content\r\n--%b--\r\n" % BOUNDARY
    for cut in range(head.length):
        assert read_head(WHOLE[:cut], BOUNDARY) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"x" * 100, "MalformedPOSTRequest"),
        (form((b'name="file"', b"x"), boundary=b"another"), "MalformedPOSTRequest"),
        (b"--%b\r\nX: y\r\n\r\nvalue\r\n" % BOUNDARY, "MalformedPOSTRequest"),
        (form((b'name="key"', b"\xff"), (b'name="file"', b"x")), "MalformedPOSTRequest"),
        (form((b'name="key"', b"a"), (b'name="KEY"', b"b"), (b'name="file"', b"x")), "InvalidArgument"),
        (form((b'name="key"', b"a")), "InvalidArgument"),
        (form((b'name="key"', b"a" * 70_000))[:-30], "MaxPostPreDataLengthExceeded"),
        (
            b'--%b\r\nContent-Disposition: form-data; name="a"; x=' % BOUNDARY + b"y" * 70_000,
            "MaxPostPreDataLengthExceeded",
        ),
    ],
)
def test_what_is_no_form(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as refused:
        read_head(body, BOUNDARY)
        read_head(body + b"x" * 70_000, BOUNDARY)
    assert refused.value.code == code


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True).filter(lambda name: name != "file")
VALUES = st.text(st.characters(codec="utf-8")).filter(lambda text: BOUNDARY.decode() not in text)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_a_rendered_form_reads_as_the_same(fields: dict[str, str]) -> None:
    rendered = render_head(fields, b'Content-Disposition: form-data; name="file"; filename="f"', BOUNDARY)
    head = read_head(rendered, BOUNDARY)
    assert head is not None
    assert (head.fields, head.length) == (fields, len(rendered))


# --- on their way through a gateway ------------------------------------------------------------------------


def form(fields: Mapping[str, str], *, content: bytes = b"content") -> bytes:
    """A whole upload whose policy speaks of all fields, and which KEY has signed."""
    s3 = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(signature_version="s3v4"),
    )
    conditions = [{name: value} for name, value in fields.items()]
    signed = s3.generate_presigned_post("bucket", "k", Fields=dict(fields), Conditions=conditions)["fields"]
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in signed.items()
    )
    file = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--b--\r\n' % content
    )
    body = parts + file
    return (
        b"POST /bucket HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("x-amz-server-side-encryption-aws-kms-key-id", "a key", "NotImplemented"),
        ("x-amz-object-lock-mode", "COMPLIANCE", "NotImplemented"),
        ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
        ("x-amz-grant-read", "id=1", "AccessControlListNotSupported"),
        ("acl", "public-read", "AccessControlListNotSupported"),
    ],
)
async def test_fields_are_refused_as_headers_are(gateway: Gateway, field: str, value: str, code: str) -> None:
    reply = await gateway.call(form({field: value}))
    assert f"<Code>{code}</Code>".encode() in reply.body


@pytest.mark.parametrize("content", [b"", b"content"])
async def test_a_form_may_come_byte_by_byte(gateway: Gateway, content: bytes) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.reply((await connection.request()).body[-40:])

    await gateway.upstream(gateway.settings.s3_socket, script)
    connection = await gateway.client()
    for byte in form({"acl": "private"}, content=content):
        connection.send(bytes([byte]))
        await asyncio.sleep(0)
    reply = await connection.reply()
    assert reply.body.endswith(content + b"\r\n--b--\r\n")
