"""Keys that no path of a file system can be: each is a key of its own, and lists have them where S3 does."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import S3Program

KEYS = sorted(
    {
        "/".join([*parts, leaf])
        for parts in [*product(["", "a", "-", ".x"], repeat=2), ("a",), ("",), ("0",), ("a", "", "", "")]
        for leaf in ("k", "ü k")
    }
    | {
        "top",
        ".hidden",
        "~",
        "!",
        "a/b/../c",
        "a/./b",
        "a/.sgwtmp/x",
        "b/",
        "a//d/",
        ".\U0010ffff/k",
        "c/.\U0010ffffk",
    },
    key=str.encode,
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Program]:
    """One whose bucket has all KEYS; the content of each is the key."""
    s3 = S3Program(tmp_path_factory.mktemp("keys") / "data").start()
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    for key in KEYS:
        client.put_object(Bucket="bucket", Key=key, Body=b"" if key.endswith("/") else key.encode())
    yield s3
    s3.ensure_stopped()


def in_s3(prefix: str, delimiter: str, after: str) -> list[str]:
    """What S3 lists, in its order: keys, and common prefixes."""
    found = set()
    for key in KEYS:
        if key.startswith(prefix):
            rest, cut, _ = (
                key[len(prefix) :].partition(delimiter) if delimiter else (key[len(prefix) :], "", "")
            )
            entry = prefix + rest + cut
            if entry > after:
                found.add(entry)
    return sorted(found, key=str.encode)


def names(page: dict[str, Any]) -> list[str]:
    entries = [entry["Key"] for entry in page.get("Contents", [])]
    entries += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    return entries


def test_each_is_an_object_of_its_own(filled: S3Program) -> None:
    client = filled.client()
    for key in KEYS:
        body = client.get_object(Bucket="bucket", Key=key)["Body"].read().decode()
        assert body == ("" if key.endswith("/") else key)
    for missing in ("a/c", "a/b", "a/x", "k/", "/a/b/k"):
        with pytest.raises(ClientError, match=r"404|NoSuchKey"):
            client.head_object(Bucket="bucket", Key=missing)


IN_ORDER = [key for key in KEYS if not any(part in key for part in ("..", "/./", ".sgwtmp", "\U0010ffff"))]
"""Those that are listed in S3's order. Others are listed too."""


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a//", "/", "//", "-", "-/", ".", ".x/", "a/.", "a//k", "nothing", "0/ü"]
)
@pytest.mark.parametrize("delimiter", ["", "/", "k"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lists_have_them_in_pages(filled: S3Program, prefix: str, delimiter: str, size: int) -> None:
    client = filled.client()
    paginator = client.get_paginator("list_objects_v2")
    pages = list(
        paginator.paginate(
            Bucket="bucket", Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
        )
    )
    found = [name for page in pages for name in names(page)]
    assert len(found) == len(set(found))
    assert set(found) == set(in_s3(prefix, delimiter, ""))
    assert all(page.get("Prefix", "") == prefix for page in pages)
    assert all(page["KeyCount"] == len(names(page)) <= size for page in pages)
    if not delimiter:
        assert [key for key in found if key in IN_ORDER] == [key for key in IN_ORDER if key in found]


@pytest.mark.parametrize("after", ["a//k", "a/", "/", "//k", "a/-", "a//", "-/k", "", "a/.x", "a/0"])
def test_a_list_begins_after_any_key(filled: S3Program, after: str) -> None:
    expected = [key for key in in_s3("", "", after) if key in IN_ORDER]
    client = filled.client()
    v2 = client.list_objects_v2(Bucket="bucket", StartAfter=after)
    assert [key for key in names(v2) if key in IN_ORDER] == expected
    v1 = client.list_objects(Bucket="bucket", Marker=after)
    assert [key for key in names(v1) if key in IN_ORDER] == expected
    versions = client.list_object_versions(Bucket="bucket", KeyMarker=after)["Versions"]
    assert [each["Key"] for each in versions if each["Key"] in IN_ORDER and each["Key"] != after] == expected


def test_all_operations_on_one_object(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    where = {"Bucket": "bucket", "Key": "a//b"}
    client.put_object(Bucket="bucket", Key="a/b", Body=b"another")
    first = client.put_object(**where, Body=b"first")["VersionId"]
    client.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "t", "Value": "v"}]})
    assert client.get_object_tagging(**where)["TagSet"] == [{"Key": "t", "Value": "v"}]
    assert client.get_object_tagging(Bucket="bucket", Key="a/b")["TagSet"] == []
    client.put_object(**where, Body=b"second")
    assert client.get_object(**where, VersionId=first)["Body"].read() == b"first"
    for source in ({**where, "VersionId": first}, f"/bucket/a//b?versionId={first}"):
        client.copy_object(Bucket="bucket", Key="/copy", CopySource=source)
        assert client.get_object(Bucket="bucket", Key="/copy")["Body"].read() == b"first"
    upload = client.create_multipart_upload(Bucket="bucket", Key="//parts")
    assert upload["Key"] == "//parts"
    assert [
        each["Key"] for each in client.list_multipart_uploads(Bucket="bucket", Prefix="/")["Uploads"]
    ] == ["//parts"]
    part = {"Bucket": "bucket", "Key": "//parts", "UploadId": upload["UploadId"]}
    etag = client.upload_part_copy(**part, PartNumber=1, CopySource=where)["CopyPartResult"]["ETag"]
    assert client.list_parts(**part)["Key"] == "//parts"
    done = client.complete_multipart_upload(
        **part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert done["Key"] == "//parts"
    assert client.get_object(Bucket="bucket", Key="//parts")["Body"].read() == b"second"
    deleted = client.delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": key} for key in ("a//b", "//parts", "/copy")]}
    )
    assert {each["Key"] for each in deleted["Deleted"]} == {"a//b", "//parts", "/copy"}
    assert names(client.list_objects_v2(Bucket="bucket")) == ["a/b"]
    markers = client.list_object_versions(Bucket="bucket", Prefix="a//")["DeleteMarkers"]
    assert [marker["Key"] for marker in markers] == ["a//b"]


def test_what_the_program_keeps_for_itself_is_no_object(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    upload = client.create_multipart_upload(Bucket="bucket", Key="k")["UploadId"]
    client.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=1, Body=b"secret")
    part = next((s3.root / "bucket").rglob("1"))
    for path in (str(part.relative_to(s3.root / "bucket")), f"x/../{part.relative_to(s3.root / 'bucket')}"):
        with pytest.raises(ClientError, match=r"404|NoSuchKey"):
            client.head_object(Bucket="bucket", Key=path)
        client.put_object(Bucket="bucket", Key=path, Body=b"other")
    assert part.read_bytes() == b"secret"
    assert Path(part).exists()
    assert set(names(client.list_objects_v2(Bucket="bucket"))) >= {path}


@pytest.mark.parametrize(
    ("key", "body", "code"),
    [
        ("d/", b"data", "DirectoryObjectContainsData"),
        ("d", b"", "ExistingObjectIsDirectory"),
        ("d/x/below", b"", "ObjectParentIsFile"),
        (f"e/{'x' * 256}", b"", "KeyTooLongError"),
    ],
)
def test_what_no_file_can_be_is_refused(s3: S3Program, key: str, body: bytes, code: str) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="d/x", Body=b"x")
    with pytest.raises(ClientError, match=code):
        client.put_object(Bucket="bucket", Key=key, Body=body)
    assert names(client.list_objects_v2(Bucket="bucket")) == ["d/x"]
    assert client.get_object(Bucket="bucket", Key="d/x")["Body"].read() == b"x"
    if code == "KeyTooLongError":  # the others are refused when the upload is completed
        with pytest.raises(ClientError, match=code):
            client.create_multipart_upload(Bucket="bucket", Key=key)
