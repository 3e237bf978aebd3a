"""The embedded S3 through the one URL: what boto3, and the object store that the server itself uses, need of it."""

import asyncio
import hashlib
import io
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import obstore
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.store import S3Store
from urllib3 import PoolManager

from tests.conformance.targets import REGION, credentials, unique
from tests.servers import MoorageServer

MIB = 1024 * 1024
LARGE = random.Random(2).randbytes(20 * MIB)
KEYS = [
    "plain",
    "a/b/c/nested.tar.gz",
    "with space",
    "plus+plus",
    "100%",
    "percent%20encoded",
    "equals=1/and&amp",
    "ünïcödé/モデル",
    "emoji-🚢",
    "quotes'\"<>",
    "semi;colon,comma:colon@at",
    "hash#question?",
    "tilde~(parentheses)!*",
    "$dollar",
    "dot.",
    ".hidden",
    "x" * 200,
]


@pytest.fixture(scope="module")
def s3(target: MoorageServer) -> Any:
    return target.client("s3")


@pytest.fixture(scope="module")
def bucket(s3: Any) -> Iterator[str]:
    name = unique("conformance")
    s3.create_bucket(Bucket=name)
    yield name
    _empty(s3, name)
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def fresh_bucket(s3: Any) -> Iterator[str]:
    name = unique("fresh")
    s3.create_bucket(Bucket=name)
    yield name
    _empty(s3, name)
    s3.delete_bucket(Bucket=name)


def _empty(s3: Any, bucket: str) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=item["Key"])


def _keys(s3: Any, bucket: str, **options: Any) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **options)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


# --- buckets -------------------------------------------------------------------------------------------


def test_the_life_of_a_bucket(s3: Any) -> None:
    name = unique("life")
    s3.create_bucket(Bucket=name)
    assert name in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert "Contents" not in s3.list_objects_v2(Bucket=name)
    s3.get_bucket_location(Bucket=name)
    s3.delete_bucket(Bucket=name)
    assert name not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket=name)
    assert _code(caught) == (404, "404")


def test_a_bucket_that_is_there_may_be_created_again(s3: Any, bucket: str) -> None:
    s3.create_bucket(Bucket=bucket)


def test_a_bucket_with_objects_is_not_deleted(s3: Any, fresh_bucket: str) -> None:
    s3.put_object(Bucket=fresh_bucket, Key="a/b", Body=b"")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket=fresh_bucket)
    assert _code(caught) == (409, "BucketNotEmpty")
    assert _keys(s3, fresh_bucket) == ["a/b"]


def test_an_unknown_bucket(s3: Any) -> None:
    missing = unique("missing")
    calls = [
        (s3.list_objects_v2, {}),
        (s3.get_object, {"Key": "k"}),
        (s3.put_object, {"Key": "k", "Body": b""}),
        (s3.delete_bucket, {}),
    ]
    for call, more in calls:
        with pytest.raises(s3.exceptions.NoSuchBucket) as caught:
            call(Bucket=missing, **more)
        assert _code(caught) == (404, "NoSuchBucket")


# --- objects -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_the_life_of_an_object(s3: Any, bucket: str, key: str) -> None:
    body = key.encode() + bytes(range(256))
    etag = s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]
    assert etag == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    found = s3.get_object(Bucket=bucket, Key=key)
    assert found["Body"].read() == body
    assert found["ETag"] == etag
    head = s3.head_object(Bucket=bucket, Key=key)
    assert (head["ContentLength"], head["ETag"]) == (len(body), etag)
    assert head["LastModified"] == found["LastModified"]
    assert _keys(s3, bucket, Prefix=key) == [key]
    copy = f"copies/{key}"
    s3.copy_object(Bucket=bucket, Key=copy, CopySource={"Bucket": bucket, "Key": key})
    assert s3.get_object(Bucket=bucket, Key=copy)["Body"].read() == body
    for each in (key, copy):
        s3.delete_object(Bucket=bucket, Key=each)
        with pytest.raises(s3.exceptions.NoSuchKey) as caught:
            s3.get_object(Bucket=bucket, Key=each)
        assert _code(caught) == (404, "NoSuchKey")


def test_an_unknown_key(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="missing")
    assert _code(caught) == (404, "404")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="missing")
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "missing"})
    assert _code(caught) == (404, "NoSuchKey")
    assert s3.delete_object(Bucket=bucket, Key="missing")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_an_object_is_replaced_whole(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="replaced", Body=b"a long first body")
    s3.put_object(Bucket=bucket, Key="replaced", Body=b"short")
    assert s3.get_object(Bucket=bucket, Key="replaced")["Body"].read() == b"short"


@pytest.mark.parametrize(
    "body", [b"", b"\0", random.Random(3).randbytes(6 * MIB)], ids=["empty", "one byte", "6 MiB"]
)
def test_a_body_goes_in_and_out_byte_for_byte(s3: Any, bucket: str, body: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="body", Body=body)
    found = s3.get_object(Bucket=bucket, Key="body")
    assert found["ContentLength"] == len(body)
    assert found["Body"].read() == body


def test_metadata_is_kept(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="described",
        Body=b"1,2",
        ContentType="text/csv; charset=utf-8",
        Metadata={"model": "a b=c", "Version": "2"},
    )
    for found in (
        s3.head_object(Bucket=bucket, Key="described"),
        s3.get_object(Bucket=bucket, Key="described"),
    ):
        assert found["ContentType"] == "text/csv; charset=utf-8"
        assert found["Metadata"] == {"model": "a b=c", "version": "2"}


def test_metadata_goes_with_a_copy(s3: Any, bucket: str) -> None:
    source = {"Bucket": bucket, "Key": "origin"}
    s3.put_object(**source, Body=b"1", ContentType="text/csv", Metadata={"a": "1"})
    s3.copy_object(Bucket=bucket, Key="same", CopySource=source)
    same = s3.head_object(Bucket=bucket, Key="same")
    assert (same["ContentType"], same["Metadata"]["a"]) == ("text/csv", "1")


def test_a_copy_may_replace_the_metadata(s3: Any, bucket: str) -> None:
    source = {"Bucket": bucket, "Key": "origin"}
    s3.put_object(**source, Body=b"1", Metadata={"a": "1"})
    s3.copy_object(
        Bucket=bucket, Key="other", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}
    )
    assert s3.head_object(Bucket=bucket, Key="other")["Metadata"] == {"b": "2"}


@pytest.mark.parametrize(
    ("wanted", "part", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-100", b"56789", "bytes 5-9/10"),
    ],
)
def test_a_range_is_read(s3: Any, bucket: str, wanted: str, part: bytes, content_range: str) -> None:
    s3.put_object(Bucket=bucket, Key="digits", Body=b"0123456789")
    found = s3.get_object(Bucket=bucket, Key="digits", Range=wanted)
    assert found["Body"].read() == part
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert found["ContentRange"] == content_range


def test_a_range_behind_the_end_is_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="digits", Body=b"0123456789")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="digits", Range="bytes=10-")
    assert _code(caught) == (416, "InvalidRange")


# --- lists ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(s3: Any) -> Iterator[str]:
    name = unique("listed")
    s3.create_bucket(Bucket=name)
    for key in ("a", "a b/1", "b/1", "b/2/x", "b/2/y", "c", "ü/1"):
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    yield name
    _empty(s3, name)
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_objects_are_listed(s3: Any, listed: str, operation: str) -> None:
    page = getattr(s3, operation)(Bucket=listed)
    assert [item["Key"] for item in page["Contents"]] == ["a", "a b/1", "b/1", "b/2/x", "b/2/y", "c", "ü/1"]
    assert [item["Size"] for item in page["Contents"]] == [1, 5, 3, 5, 5, 1, 4]
    assert page["IsTruncated"] is False
    page = getattr(s3, operation)(Bucket=listed, Prefix="b/")
    assert [item["Key"] for item in page["Contents"]] == ["b/1", "b/2/x", "b/2/y"]
    assert "Contents" not in getattr(s3, operation)(Bucket=listed, Prefix="none/")


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_a_delimiter_makes_directories(s3: Any, listed: str, operation: str) -> None:
    page = getattr(s3, operation)(Bucket=listed, Delimiter="/")
    assert [item["Key"] for item in page["Contents"]] == ["a", "c"]
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["a b/", "b/", "ü/"]
    page = getattr(s3, operation)(Bucket=listed, Prefix="b/", Delimiter="/")
    assert [item["Key"] for item in page["Contents"]] == ["b/1"]
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["b/2/"]


def test_a_prefix_may_end_within_a_name(s3: Any, listed: str) -> None:
    assert _keys(s3, listed, Prefix="b/2") == ["b/2/x", "b/2/y"]
    assert _keys(s3, listed, Prefix="a") == ["a", "a b/1"]


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_lists_are_paged(s3: Any, listed: str, operation: str) -> None:
    pages = list(s3.get_paginator(operation).paginate(Bucket=listed, PaginationConfig={"PageSize": 3}))
    assert [[item["Key"] for item in page["Contents"]] for page in pages] == [
        ["a", "a b/1", "b/1"],
        ["b/2/x", "b/2/y", "c"],
        ["ü/1"],
    ]


def test_a_list_starts_after_a_key(s3: Any, listed: str) -> None:
    assert _keys(s3, listed, StartAfter="b/2/x") == ["b/2/y", "c", "ü/1"]


def test_several_objects_are_deleted_at_once(s3: Any, fresh_bucket: str) -> None:
    keys = ["one", "dir/two", "three & four", "fünf"]
    for key in keys:
        s3.put_object(Bucket=fresh_bucket, Key=key, Body=b"")
    wanted = [{"Key": key} for key in (*keys, "missing")]
    reply = s3.delete_objects(Bucket=fresh_bucket, Delete={"Objects": wanted})
    assert sorted(item["Key"] for item in reply["Deleted"]) == sorted((*keys, "missing"))
    assert "Errors" not in reply
    assert _keys(s3, fresh_bucket) == []


def test_an_object_may_be_named_like_a_directory(s3: Any, fresh_bucket: str) -> None:
    """Consoles and tools make `prefix/` objects of no bytes."""
    s3.put_object(Bucket=fresh_bucket, Key="folder/", Body=b"")
    s3.put_object(Bucket=fresh_bucket, Key="folder/file", Body=b"1")
    assert _keys(s3, fresh_bucket) == ["folder/", "folder/file"]


@pytest.mark.xfail(reason="a key is a file, so none can be below another")
def test_a_key_may_be_the_prefix_of_another(s3: Any, fresh_bucket: str) -> None:
    s3.put_object(Bucket=fresh_bucket, Key="model", Body=b"1")
    s3.put_object(Bucket=fresh_bucket, Key="model/1", Body=b"2")
    assert _keys(s3, fresh_bucket) == ["model", "model/1"]


# --- large objects -------------------------------------------------------------------------------------


def test_a_large_file_is_uploaded_in_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(LARGE)
    s3.upload_file(str(source), bucket, "large/file", ExtraArgs={"Metadata": {"a": "1"}})
    head = s3.head_object(Bucket=bucket, Key="large/file")
    assert head["ContentLength"] == len(LARGE)
    assert head["Metadata"] == {"a": "1"}
    s3.download_file(bucket, "large/file", str(copy))
    assert copy.read_bytes() == LARGE


def test_a_stream_is_uploaded_in_parts(s3: Any, bucket: str) -> None:
    s3.upload_fileobj(
        io.BytesIO(LARGE), bucket, "large/stream", Config=TransferConfig(multipart_chunksize=5 * MIB)
    )
    out = io.BytesIO()
    s3.download_fileobj(bucket, "large/stream", out)
    assert out.getvalue() == LARGE


def test_a_multipart_upload_by_hand(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "by hand"}
    upload = s3.create_multipart_upload(**where, ContentType="text/x")["UploadId"]
    # The parts may come in any order.
    second = s3.upload_part(**where, UploadId=upload, PartNumber=2, Body=b"end")
    first = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"1" * (5 * MIB))
    assert [part["PartNumber"] for part in s3.list_parts(**where, UploadId=upload)["Parts"]] == [1, 2]
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(**where)
    parts = [{"PartNumber": 1, "ETag": first["ETag"]}, {"PartNumber": 2, "ETag": second["ETag"]}]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    found = s3.get_object(**where)
    assert found["Body"].read() == b"1" * (5 * MIB) + b"end"
    assert found["ContentType"] == "text/x"


def test_a_part_may_be_sent_again(s3: Any, fresh_bucket: str) -> None:
    where = {"Bucket": fresh_bucket, "Key": "again"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    try:
        s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"1")
        s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"2")
    finally:
        s3.abort_multipart_upload(**where, UploadId=upload)


def test_an_aborted_upload_leaves_nothing(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "aborted"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"1")
    s3.abort_multipart_upload(**where, UploadId=upload)
    assert _keys(s3, bucket, Prefix="aborted") == []
    with pytest.raises(ClientError) as caught:
        s3.upload_part(**where, UploadId=upload, PartNumber=2, Body=b"2")
    assert _code(caught) == (404, "NoSuchUpload")


# --- checksums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [None, "CRC32", "SHA1", "SHA256"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "in parts"])
def test_checksums_that_boto3_sends(s3: Any, bucket: str, algorithm: str | None, large: bool) -> None:
    body = LARGE[: 9 * MIB] if large else b"small"
    extra = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    s3.upload_fileobj(io.BytesIO(body), bucket, "summed", ExtraArgs=extra)
    assert s3.get_object(Bucket=bucket, Key="summed", ChecksumMode="ENABLED")["Body"].read() == body


@pytest.mark.parametrize(
    "checksum",
    [
        {"ContentMD5": "A" * 22 + "=="},
        {"ChecksumCRC32": "AAAAAA=="},
        {"ChecksumSHA256": "A" * 43 + "="},
    ],
    ids=["MD5", "CRC32", "SHA256"],
)
def test_a_wrong_checksum_is_refused(s3: Any, fresh_bucket: str, checksum: dict[str, str]) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=fresh_bucket, Key="damaged", Body=b"body", **checksum)
    assert _code(caught) == (400, "BadDigest")
    assert _keys(s3, fresh_bucket) == []


def test_a_large_object_put_in_one_piece_is_downloaded_in_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    s3.put_object(Bucket=bucket, Key="large/one piece", Body=LARGE)
    one_by_one = TransferConfig(use_threads=False)
    s3.download_file(bucket, "large/one piece", str(tmp_path / "copy"), Config=one_by_one)
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_conditions_are_kept(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "conditional"}
    etag = s3.put_object(**where, Body=b"1")["ETag"]
    assert s3.head_object(**where, IfMatch=etag)["ETag"] == etag
    for condition, expected in (({"IfMatch": '"other"'}, 412), ({"IfNoneMatch": etag}, 304)):
        with pytest.raises(ClientError) as caught:
            s3.head_object(**where, **condition)
        assert _code(caught)[0] == expected


# --- signatures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "AKIAUNKNOWN"}, "InvalidAccessKeyId"),
        ({"config": Config(signature_version=UNSIGNED)}, "AccessDenied"),
    ],
    ids=["wrong secret", "unknown key", "unsigned"],
)
def test_a_request_that_is_not_signed_right_is_refused(
    target: MoorageServer, s3: Any, bucket: str, options: dict[str, Any], code: str
) -> None:
    s3.put_object(Bucket=bucket, Key="guarded", Body=b"1")
    given = {
        "aws_access_key_id": credentials(target).access_key,
        "aws_secret_access_key": credentials(target).secret_key,
        **options,
    }
    stranger = boto3.client("s3", endpoint_url=target.url, region_name=REGION, **given)
    calls = [
        (stranger.list_buckets, {}),
        (stranger.get_object, {"Bucket": bucket, "Key": "guarded"}),
        (stranger.put_object, {"Bucket": bucket, "Key": "guarded", "Body": b"2"}),
        (stranger.put_object, {"Bucket": bucket, "Key": "guarded", "Body": LARGE[:MIB]}),
        (stranger.delete_object, {"Bucket": bucket, "Key": "guarded"}),
    ]
    for call, members in calls:
        with pytest.raises(ClientError) as caught:
            call(**members)
        assert _code(caught) == (403, code)
    assert s3.get_object(Bucket=bucket, Key="guarded")["Body"].read() == b"1"


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_body_that_was_changed_on_its_way_is_refused(
    target: MoorageServer, s3: Any, bucket: str, size: int
) -> None:
    """And what was there before stays."""

    def change(request: Any, **_: Any) -> None:
        request.body = b"x" * size

    s3.put_object(Bucket=bucket, Key="kept", Body=b"before")
    client = target.client("s3")
    client.meta.events.register("before-send.s3.PutObject", change)
    for key in ("kept", "never"):
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=bucket, Key=key, Body=b"y" * size)
        assert _code(caught) == (400, "XAmzContentSHA256Mismatch")
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"before"
    assert _keys(s3, bucket, Prefix="never") == []


@pytest.fixture
def presigning(target: MoorageServer) -> Any:
    return target.client("s3", signature_version="s3v4")


def _fetch(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("key", KEYS)
def test_presigned_urls(presigning: Any, bucket: str, key: str) -> None:
    where = {"Bucket": bucket, "Key": f"presigned/{key}"}

    def url(operation: str, **options: Any) -> str:
        return str(presigning.generate_presigned_url(operation, Params=where, **options))

    assert _fetch(url("put_object"), "PUT", b"body") == (200, b"")
    assert _fetch(url("get_object", ExpiresIn=1000)) == (200, b"body")
    assert _fetch(url("head_object"), "HEAD") == (200, b"")
    assert presigning.get_object(**where)["Body"].read() == b"body"
    assert _fetch(url("get_object"), Range="bytes=1-2") == (206, b"od")
    assert _fetch(url("delete_object"), "DELETE") == (204, b"")
    assert _fetch(url("get_object"))[0] == 404


@pytest.mark.parametrize("key", KEYS)
def test_presigned_urls_as_boto3_makes_them_by_default(s3: Any, bucket: str, key: str) -> None:
    """Signature version 2, unless `signature_version="s3v4"` is given."""
    where = {"Bucket": bucket, "Key": f"presigned2/{key}"}

    def url(operation: str, **params: Any) -> str:
        made = str(s3.generate_presigned_url(operation, Params={**where, **params}))
        assert "AWSAccessKeyId=" in made
        return made

    put = url("put_object", ContentType="text/plain")
    assert _fetch(put, "PUT", LARGE, **{"Content-Type": "text/plain"}) == (200, b"")
    assert s3.get_object(**where)["ContentType"] == "text/plain"
    assert _fetch(put, "PUT", b"x", **{"Content-Type": "text/html"})[0] == 403
    assert _fetch(url("get_object")) == (200, LARGE)
    assert _fetch(url("head_object"), "HEAD") == (200, b"")
    assert _fetch(url("delete_object"), "DELETE") == (204, b"")
    status, reply = _fetch(url("get_object").replace("Signature=", "Signature=A"))
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in reply) == (403, True)
    expired = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=-1)
    status, reply = _fetch(expired)
    assert (status, b"<Message>Request has expired</Message>" in reply) == (403, True)
    listing = s3.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket, "Prefix": "presigned2/"})
    assert _fetch(listing)[0] == 200


def test_a_presigned_put_of_a_large_body(presigning: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "presigned large"}
    assert _fetch(presigning.generate_presigned_url("put_object", Params=where), "PUT", LARGE)[0] == 200
    assert _fetch(presigning.generate_presigned_url("get_object", Params=where)) == (200, LARGE)


def test_what_a_presigned_url_holds_besides_is_kept(presigning: Any, bucket: str) -> None:
    for key in ("by-url/1", "by-url/2"):
        presigning.put_object(Bucket=bucket, Key=key, Body=b"")
    params = {"Bucket": bucket, "Prefix": "by-url/", "MaxKeys": 1}
    status, body = _fetch(presigning.generate_presigned_url("list_objects_v2", Params=params))
    assert status == 200
    assert b"<Key>by-url/1</Key>" in body
    assert b"by-url/2" not in body


def test_a_presigned_url_is_good_for_what_it_was_made_for_only(presigning: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "presigned"}
    presigning.put_object(**where, Body=b"1")
    url = presigning.generate_presigned_url("get_object", Params=where)
    for method, body, changed in (
        ("PUT", b"2", url),
        ("DELETE", None, url),
        ("GET", None, url.replace("/presigned?", "/presigned2?")),
        ("GET", None, url.replace("X-Amz-Expires=3600", "X-Amz-Expires=3601")),
        ("GET", None, url + "&versionId=1"),
    ):
        status, reply = _fetch(changed, method, body)
        assert (status, b"<Code>SignatureDoesNotMatch</Code>" in reply) == (403, True)
    assert _fetch(url) == (200, b"1")


TAGGING = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_an_upload_from_a_form(target: MoorageServer, bucket: str, version: str) -> None:
    s3 = target.client("s3", signature_version=version)
    form = s3.generate_presigned_post(
        bucket,
        f"forms/{version}/${{filename}}",
        Fields={"x-amz-meta-a": "1", "success_action_status": "201", "tagging": TAGGING, "acl": "private"},
        Conditions=[
            {"x-amz-meta-a": "1"},
            {"acl": "private"},
            ["starts-with", "$tagging", ""],
            {"success_action_status": "201"},
            ["content-length-range", 1, len(LARGE)],
        ],
    )

    def send(content: bytes, **fields: str) -> tuple[int, bytes]:
        file = ("a file.txt", content, "text/plain")
        parts = {**form["fields"], **fields, "file": file}
        reply = PoolManager().request_encode_body("POST", form["url"], fields=parts)
        return reply.status, reply.data

    status, reply = send(LARGE)
    assert (status, f"<Key>forms/{version}/a file.txt</Key>".encode() in reply) == (201, True)
    found = target.client("s3").get_object(Bucket=bucket, Key=f"forms/{version}/a file.txt")
    assert (found["Body"].read(), found["Metadata"], found["TagCount"]) == (LARGE, {"a": "1"}, 1)
    for content, fields, code in (
        (LARGE + b"1", {}, "EntityTooLarge"),
        (b"", {}, "EntityTooSmall"),
        (b"1", {"key": "elsewhere"}, "AccessDenied"),
        (b"1", {"x-amz-meta-b": "2"}, "AccessDenied"),
        (b"1", {"policy": form["fields"]["policy"] + "IA=="}, "SignatureDoesNotMatch"),
    ):
        _, reply = send(content, **fields)
        assert f"<Code>{code}</Code>".encode() in reply


# --- the object store that the server itself uses ------------------------------------------------------


@pytest.fixture
def store(target: MoorageServer, bucket: str) -> S3Store:
    key = credentials(target)
    token = {"token": key.token} if key.token else {}
    return S3Store(
        bucket,
        prefix="obstore",
        endpoint=target.url,
        region=REGION,
        access_key_id=key.access_key,
        secret_access_key=key.secret_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        **token,
    )


@pytest.mark.parametrize("key", ["plain", "a/b c/d", "plus+plus", "100%", "equals=1", "ünï/モデル"])
async def test_obstore_puts_and_gets(store: S3Store, s3: Any, bucket: str, key: str) -> None:
    await obstore.put_async(store, key, b"0123456789", attributes={"Content-Type": "text/csv"})
    result = await obstore.get_async(store, key)
    assert bytes(await result.bytes_async()) == b"0123456789"
    assert result.attributes["Content-Type"] == "text/csv"
    assert (await obstore.head_async(store, key))["size"] == 10
    await obstore.copy_async(store, key, f"copy/{key}")
    found = [item["path"] async for page in obstore.list(store, "copy") for item in page]
    assert found == [f"copy/{key}"]
    other = await asyncio.to_thread(s3.get_object, Bucket=bucket, Key=f"obstore/{key}")
    assert await asyncio.to_thread(other["Body"].read) == b"0123456789", "both clients mean the same object"
    await obstore.delete_async(store, [key, f"copy/{key}"])
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(store, key)


async def test_obstore_reads_a_range(store: S3Store) -> None:
    await obstore.put_async(store, "digits", b"0123456789")
    assert bytes(await obstore.get_range_async(store, "digits", start=2, end=5)) == b"234"


async def test_obstore_uploads_a_large_object_in_parts(store: S3Store) -> None:
    await obstore.put_async(store, "large", io.BytesIO(LARGE), use_multipart=True)
    result = await obstore.get_async(store, "large")
    digest = hashlib.sha256()
    async for chunk in result.stream(min_chunk_size=MIB):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(LARGE).digest()


async def test_obstore_finds_no_object(store: S3Store) -> None:
    with pytest.raises(FileNotFoundError):
        await obstore.get_async(store, "missing")
