"""Which operation a request is, beside botocore's model of S3; and what is refused before anything is relayed."""

import re
from urllib.parse import quote

import pytest
from botocore.model import OperationModel
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import S3Error
from moorage.gateway.s3.operations import OPERATIONS, Level
from moorage.gateway.s3.reading import check_key, read
from moorage.gateway.s3.signing import source_header, target_of
from tests.gateway.s3.sent import client, least_members, sent

S3 = client()
MODEL = S3.meta.service_model
NAMED = {"Bucket": "bucket", "Key": "a key", "UploadId": "upload", "PartNumber": 1, "CopySource": "from/here"}
OLD_NAMES = {  # deprecated twins, which differ from the others in their members only
    "GetBucketLifecycle",
    "GetBucketNotification",
    "PutBucketLifecycle",
    "PutBucketNotification",
}
LIKE_ANOTHER = {
    "ListDirectoryBuckets": "ListBuckets",  # another host name on AWS
    "WriteGetObjectResponse": None,  # the host of an access point
    "CreateSession": None,
}


def method_of(name: str) -> str:
    return str(S3.meta.method_to_api_mapping and _METHODS[name])


_METHODS = {api: method for method, api in S3.meta.method_to_api_mapping.items()}


def model(name: str) -> OperationModel:
    found: OperationModel = MODEL.operation_model(name)
    return found


@pytest.mark.parametrize("name", sorted(set(MODEL.operation_names) - LIKE_ANOTHER.keys()))
def test_an_operation_is_read_as_itself_or_refused(name: str) -> None:
    members = least_members(model(name).input_shape, NAMED)
    request = sent(method_of(name), S3, **members)
    if name in OPERATIONS:
        found = read(*request)
        assert found.operation.name == name
        assert (found.bucket, found.key) == (members.get("Bucket", ""), members.get("Key", ""))
    else:
        with pytest.raises(S3Error) as refused:
            read(*request)
        assert (refused.value.code, refused.value.status) == ("NotImplemented", 501)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_tables_have_what_the_model_has(name: str) -> None:
    operation, described = OPERATIONS[name], model(name)
    assert described.http["method"] == operation.method
    uri = described.http["requestUri"]
    members = described.input_shape.members if described.input_shape is not None else {}
    level = Level.OBJECT if "Key" in members else Level.BUCKET if "Bucket" in members else Level.SERVICE
    assert level is operation.level
    places: dict[str, set[str]] = {"querystring": set(), "header": set(), "headers": set()}
    for member in members.values():
        location = member.serialization.get("location")
        if location in places:
            places[location].add(str(member.serialization["name"]).lower())
    in_uri = {part.partition("=")[0].lower() for part in uri.partition("?")[2].split("&") if part}
    assert {each.lower() for each in operation.subresource} >= in_uri
    assert {each.lower() for each in operation.subresource | operation.query} <= places[
        "querystring"
    ] | in_uri
    ours = {each.decode() for each in operation.headers}
    of_protocol = {
        "x-amz-te",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "x-amz-sdk-checksum-algorithm",
    }
    checksums = {each for each in ours if re.fullmatch("x-amz-checksum-[a-z0-9]+", each)}
    assert ours - of_protocol - checksums <= places["header"]
    assert operation.takes_metadata == ("x-amz-meta-" in places["headers"])
    assert operation.copies == ("x-amz-copy-source" in places["header"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_takes_another_sub_resource(name: str) -> None:
    """Of any operation in the model, on its own path."""
    members = least_members(model(name).input_shape, NAMED)
    method, target, headers = sent(method_of(name), S3, **members)
    subresources = set()
    for other in MODEL.operation_names:
        query = model(other).http["requestUri"].partition("?")[2]
        subresources |= {part.partition("=")[0] for part in query.split("&") if part}
    assert len(subresources) > 30
    for subresource in sorted(subresources - OPERATIONS[name].subresource):
        for parameter in (subresource, f"{subresource}="):
            joined = target + (b"&" if b"?" in target else b"?") + parameter.encode()
            try:
                found = read(method, joined, headers).operation
            except S3Error:
                continue
            assert subresource in found.subresource, f"{name} took ?{subresource}"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (b"/b/k?uploadId=", "NoSuchUpload"),
        (b"/b/k?versionId=", "InvalidArgument"),
        (b"/b/k?versionId=1&versionId=2", "InvalidArgument"),
        (b"/b?list-type=1", "InvalidArgument"),
        (b"/b?tagging&acl", "NotImplemented"),
        (b"/b/k?Tagging", "NotImplemented"),
        (b"/b/k?unknown", "NotImplemented"),
        (b"/b/k?x-amz-meta-a=%0d%0aX-Amz-Copy-Source:%20o/k", "InvalidArgument"),
        (b"/b/k?x-amz-acl=public-read", "NotImplemented"),
        (b"/b/%ff", "InvalidURI"),
        (b"/b/k?prefix=%ff", "InvalidURI"),
        (b"b/k", "InvalidURI"),
        (b"/b/k?uploadId=..%2F..%2Fother", "NoSuchUpload"),
        (b"/b/k?versionId=..%2F..%2Fother", "InvalidArgument"),
        (b"//k", "InvalidBucketName"),
        (b"/../other/k", "InvalidBucketName"),
        (b"/Other/k", "InvalidBucketName"),
        (b"/%2562ucket?policy", "InvalidBucketName"),
        (b"/bucket%3Fx", "InvalidBucketName"),
        (b"/b%0d%0aX-Moorage-Account-Id:%20000000000000%0d%0a%0d%0a", "InvalidBucketName"),
        (b"/b/a%00", "InvalidArgument"),
        (b"/b/../k", "InvalidURI"),
        (b"/b/%2e%2e/k", "InvalidURI"),
        (b"/b/a/..", "InvalidURI"),
        (b"/b/a/../../c/k", "InvalidURI"),
        (b"/b/" + b"k" * 1025, "KeyTooLongError"),
    ],
)
def test_what_cannot_be_read_is_refused(target: bytes, code: str) -> None:
    with pytest.raises(S3Error) as refused:
        read(b"GET", target, {})
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({b"x-amz-write-offset-bytes": b"0"}, "NotImplemented"),
        ({b"x-amz-server-side-encryption": b"aws:kms:dsse"}, "InvalidArgument"),
        ({b"x-amz-server-side-encryption-aws-kms-key-id": b"a key"}, "NotImplemented"),
        ({b"x-amz-object-lock-mode": b"GOVERNANCE"}, "NotImplemented"),
        ({b"x-amz-rename-source": b"b/k"}, "NotImplemented"),
        ({b"x-amz-something": b"new"}, "NotImplemented"),
        ({b"x-amz-grant-read": b"id=1"}, "AccessControlListNotSupported"),
        ({b"x-amz-acl": b"public-read"}, "AccessControlListNotSupported"),
        ({b"x-amz-storage-class": b"GLACIER"}, "InvalidStorageClass"),
        ({b"x-amz-copy-source": b"nothing"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"/b/"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"arn:aws:s3:us-east-1:1:accesspoint/a/object/k"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"b/../c/k"}, "InvalidURI"),
        ({b"x-amz-copy-source": b"b/k?versionId="}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"b/k?versionId=../../x"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"../secret-key"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"B/k"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"b/k?acl"}, "InvalidArgument"),
        ({b"x-amz-copy-source": b"b/k%3FversionId=1"}, "NotImplemented"),
        ({b"x-amz-copy-source": b"b/%ff"}, "InvalidArgument"),
    ],
)
def test_headers_that_imply_something_else_are_refused(headers: dict[bytes, bytes], code: str) -> None:
    with pytest.raises(S3Error) as refused:
        read(b"PUT", b"/b/k", headers)
    assert refused.value.code == code


def test_a_value_that_is_what_happens_anyway_is_not_relayed() -> None:
    headers = {
        b"x-amz-acl": b"private",
        b"x-amz-storage-class": b"STANDARD",
        b"x-amz-server-side-encryption": b"aws:kms",
        b"x-amz-meta-a": b"b",
        b"authorization": b"x",
        b"user-agent": b"x",
        b"x-amz-security-token": b"secret",
        b"content-type": b"text/plain",
    }
    found = read(b"PUT", b"/b/k", headers)
    assert found.headers == {b"x-amz-meta-a": b"b", b"content-type": b"text/plain"}


def test_tags_of_the_header_count_for_a_copy_only_where_they_replace_those_of_the_source() -> None:
    copy = {b"x-amz-copy-source": b"b/k", b"x-amz-tagging": b"class=public"}
    for directive in ({}, {b"x-amz-tagging-directive": b"COPY"}, {b"x-amz-tagging-directive": b"replace"}):
        found = read(b"PUT", b"/b/k", {**copy, **directive})
        assert (list(found.request_tags), found.copies_tags) == ([], True)
        assert b"x-amz-tagging" not in found.headers
    replacing = read(b"PUT", b"/b/k", {**copy, b"x-amz-tagging-directive": b"REPLACE"})
    assert (list(replacing.request_tags), replacing.copies_tags) == ([("class", "public")], False)


def test_checksums_of_no_body_are_not_relayed() -> None:
    """The AWS SDK for Java sends that of the empty body with a GET, and asks for another one at the reply's end."""
    headers = {
        b"x-amz-checksum-crc32": b"AAAAAA==",
        b"x-amz-sdk-checksum-algorithm": b"CRC32",
        b"x-amz-te": b"append-md5",
        b"x-amz-checksum-mode": b"ENABLED",
    }
    assert read(b"GET", b"/b/k", headers).headers == {b"x-amz-checksum-mode": b"ENABLED"}
    put = {b"x-amz-checksum-crc32": b"AAAAAA=="}
    assert read(b"PUT", b"/b/k", put).headers == put


def test_what_presigners_put_into_the_query_counts_as_a_header() -> None:
    target = b"/b/k?x-amz-meta-A=b%20c&x-amz-tagging=a%3Db&x-amz-checksum-crc32=AAAAAA%3D%3D&x-id=PutObject"
    found = read(b"PUT", target, {})
    assert found.operation.name == "PutObject"
    assert found.headers == {b"x-amz-meta-a": b"b c", b"x-amz-tagging": b"a=b"}
    assert found.query == {}


KEYS = st.text(min_size=1, max_size=40).filter(lambda key: _is_kept(key))


def _is_kept(key: str) -> bool:
    try:
        check_key(key)
        key.encode()
    except (S3Error, UnicodeEncodeError):
        return False
    return True


QUERIES = st.dictionaries(
    st.sampled_from(["prefix", "marker", "delimiter"]), st.text(st.characters(codec="utf-8"))
)


@given(KEYS, QUERIES)
def test_what_is_relayed_reads_as_the_same(key: str, query: dict[str, str]) -> None:
    raw = f"/bucket/{quote(key)}".encode()
    found = read(b"GET", raw, {})
    assert found.key == key
    path, _ = target_of(found)
    assert read(b"GET", path, {}).key == key
    listing = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query.items())
    asked = read(b"GET", f"/bucket?{listing}".encode(), {})
    path, relayed = target_of(asked)
    assert read(b"GET", path + b"?" + relayed, {}).query == query == asked.query
    if "?versionId=" not in key:
        copied = read(b"PUT", raw, {b"x-amz-copy-source": f"other/{quote(key)}".encode()})
        assert copied.source is not None
        again = read(b"PUT", raw, {b"x-amz-copy-source": source_header(copied.source)})
        assert again.source == copied.source
