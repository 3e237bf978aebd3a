"""What S3 says and versitygw's POSIX backend leaves out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import S3Program

MIB = 1024 * 1024
ODD = ["a b", "a%2Bb", "a+b", "d/ä ö", "e\x01f", "z&<>\"'"]


@pytest.fixture(params=["attributes of files", "a side directory"])
def client(new_s3: Callable[..., S3Program], request: pytest.FixtureRequest) -> Any:
    """The metadata of objects is kept in the one or the other."""
    s3 = new_s3()
    if request.param == "a side directory":
        (s3.data_dir / "s3-metadata" / "used-before").mkdir(parents=True)
    client = s3.start().client()
    client.create_bucket(Bucket="bucket")
    return client


def refused(call: Any, **members: Any) -> tuple[int, str, dict[str, str]]:
    """Status, code and headers of the error."""
    with pytest.raises(ClientError) as caught:
        call(Bucket="bucket", **members)
    said = caught.value.response
    metadata = said["ResponseMetadata"]
    return metadata["HTTPStatusCode"], said["Error"]["Code"], metadata["HTTPHeaders"]


def test_lists_name_every_key_as_it_is(client: Any) -> None:
    """botocore asks for encoded lists by itself, since XML has no way to write some of these keys."""
    for key in ODD:
        client.put_object(Bucket="bucket", Key=key)
        client.create_multipart_upload(Bucket="bucket", Key=key)
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    for key in ODD:
        client.put_object(Bucket="bucket", Key=key)
    for call in (client.list_objects, client.list_objects_v2):
        assert [each["Key"] for each in call(Bucket="bucket")["Contents"]] == ODD
        split = call(Bucket="bucket", Delimiter=" ")
        assert [each["Prefix"] for each in split["CommonPrefixes"]] == ["a ", "d/ä "]
        assert [each["Key"] for each in call(Bucket="bucket", Prefix="e\x01")["Contents"]] == ["e\x01f"]
    versions = client.list_object_versions(Bucket="bucket")["Versions"]
    assert [each["Key"] for each in versions] == [key for key in ODD for _ in range(2)]
    uploads = client.list_multipart_uploads(Bucket="bucket", EncodingType="url")["Uploads"]
    assert sorted(unquote(each["Key"]) for each in uploads) == ODD


def test_lists_go_on_after_any_key(client: Any) -> None:
    for key in ODD:
        client.put_object(Bucket="bucket", Key=key)
    for name in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(name).paginate(Bucket="bucket", PaginationConfig={"PageSize": 1})
        assert [each["Key"] for page in pages for each in page.get("Contents", ())] == ODD


def versions_of(client: Any, size: int, **members: str) -> list[tuple[str, str]]:
    """Keys and versions of a list of pages, of which none is longer than asked for."""
    entries = []
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket="bucket", PaginationConfig={"PageSize": size}, **members
    )
    for page in pages:
        listed = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        names = [(each["Prefix"], "") for each in page.get("CommonPrefixes", ())]
        assert len(listed) + len(names) <= size
        entries += [(each["Key"], each["VersionId"]) for each in listed] + names
    return entries


def test_lists_of_versions_go_on_after_any_version(client: Any) -> None:
    for key in ODD:
        client.put_object(Bucket="bucket", Key=key)
    assert versions_of(client, 1) == versions_of(client, 4) == [(key, "null") for key in ODD]
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    expected = {(key, "null") for key in ODD}
    for turn in range(3):
        for key in ODD[turn:]:
            expected.add((key, client.put_object(Bucket="bucket", Key=key)["VersionId"]))
    for key in ODD[1:3]:
        expected.add((key, client.delete_object(Bucket="bucket", Key=key)["VersionId"]))
    whole = versions_of(client, 1000)
    assert set(whole) == expected
    assert len(whole) == len(expected)
    for size in range(1, 8):
        assert sorted(versions_of(client, size)) == sorted(whole)
        assert sorted(versions_of(client, size, Prefix="a")) == [
            each for each in sorted(whole) if each[0] < "b"
        ]
    for size in (1, 2, 50):
        split = versions_of(client, size, Delimiter="/")
        assert sorted(split) == sorted([each for each in whole if "/" not in each[0]] + [("d/", "")])
    key = ODD[3]
    own = client.list_object_versions(Bucket="bucket", Prefix=key)["Versions"]
    times = [each["LastModified"] for each in own]
    assert times == sorted(times, reverse=True)
    assert [each["IsLatest"] for each in own] == [True, False, False, False, False][: len(own)]
    assert own[-1]["VersionId"] == "null"


def test_lists_are_encoded_only_for_those_that_ask(client: Any) -> None:
    client.put_object(Bucket="bucket", Key="a+b c/d")
    asked = client.list_objects_v2(Bucket="bucket", EncodingType="url", Delimiter="/")
    assert asked["EncodingType"] == "url"
    assert asked["CommonPrefixes"] == [{"Prefix": "a%2Bb%20c/"}]
    client.meta.events.register("before-call.s3.ListObjectsV2", _do_not_ask_for_encoding)
    plain = client.list_objects_v2(Bucket="bucket")
    assert not plain.get("EncodingType")
    assert [each["Key"] for each in plain["Contents"]] == ["a+b c/d"]


def _do_not_ask_for_encoding(params: dict[str, Any], **_: Any) -> None:
    params["query_string"].pop("encoding-type", None)
    params["url"] = params["url"].replace("&encoding-type=url", "")


def test_lists_have_their_empty_members(client: Any) -> None:
    assert client.list_objects(Bucket="bucket").items() >= {"Prefix": "", "Marker": ""}.items()
    assert client.list_objects_v2(Bucket="bucket")["Prefix"] == ""
    versions = client.list_object_versions(Bucket="bucket")
    assert versions.items() >= {"Prefix": "", "KeyMarker": "", "VersionIdMarker": ""}.items()


def test_what_is_not_modified_has_its_etag(client: Any) -> None:
    etag = client.put_object(Bucket="bucket", Key="k", Body=b"x")["ETag"]
    modified = client.head_object(Bucket="bucket", Key="k")["LastModified"]
    for call in (client.get_object, client.head_object):
        call(Bucket="bucket", Key="k", IfUnmodifiedSince=modified)
        for condition in ({"IfNoneMatch": etag}, {"IfModifiedSince": modified}):
            status, _, headers = refused(call, Key="k", **condition)
            assert (status, headers["etag"]) == (304, etag)
            assert "last-modified" in headers


def test_a_copy_of_what_must_not_be_is_no_304(client: Any) -> None:
    etag = client.put_object(Bucket="bucket", Key="k", Body=b"x")["ETag"]
    source = {"CopySource": "bucket/k", "CopySourceIfNoneMatch": etag}
    assert refused(client.copy_object, Key="copy", **source)[:2] == (412, "PreconditionFailed")
    upload = client.create_multipart_upload(Bucket="bucket", Key="copy")["UploadId"]
    part = {"UploadId": upload, "PartNumber": 1, **source}
    assert refused(client.upload_part_copy, Key="copy", **part)[:2] == (412, "PreconditionFailed")


@pytest.mark.parametrize("key", ["k", "a//b"])
def test_head_of_a_deleted_object_tells_the_delete_marker(client: Any, key: str) -> None:
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="bucket", Key=key)
    client.delete_object(Bucket="bucket", Key=key)
    for call in (client.get_object, client.head_object):
        status, _, headers = refused(call, Key=key)
        assert (status, headers["x-amz-delete-marker"]) == (404, "true")
    assert "x-amz-delete-marker" not in refused(client.head_object, Key="never")[2]


def test_tags_come_in_the_order_of_their_keys(client: Any) -> None:
    tags = [{"Key": f"{number}", "Value": "v"} for number in range(10)]
    client.put_object(Bucket="bucket", Key="k")
    client.put_object_tagging(Bucket="bucket", Key="k", Tagging={"TagSet": tags[::-1]})
    client.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": tags[::-1]})
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == tags
    assert client.get_bucket_tagging(Bucket="bucket")["TagSet"] == tags


def test_the_longest_tags_are_kept(client: Any) -> None:
    """With their keys they have 3,840 bytes; a file of ext4 has 4,096 for all its extended attributes."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    text = "".join(letters[(index * index * 31 + index * 7) % 62] for index in range(3840))
    tags = [{"Key": f"{n}{text[n * 384 :][:127]}", "Value": text[n * 384 + 128 :][:256]} for n in range(10)]
    client.put_object(Bucket="bucket", Key="k", Metadata={"a": "b" * 1000})
    client.put_object_tagging(Bucket="bucket", Key="k", Tagging={"TagSet": tags})
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == tags
    client.copy_object(Bucket="bucket", Key="copy", CopySource="bucket/k")
    assert client.get_object_tagging(Bucket="bucket", Key="copy")["TagSet"] == tags
    assert client.head_object(Bucket="bucket", Key="copy")["Metadata"] == {"a": "b" * 1000}


@pytest.mark.parametrize("upload", ["whole", "in parts"])
def test_conditions_of_writes_are_those_of_http(client: Any, upload: str) -> None:
    def put(body: bytes, **condition: str) -> str:
        members = {"Bucket": "bucket", "Key": "a//b"}
        if upload == "whole":
            return str(client.put_object(**members, Body=body, **condition)["ETag"])
        begun = client.create_multipart_upload(**members)["UploadId"]
        part = client.upload_part(**members, UploadId=begun, PartNumber=1, Body=body)["ETag"]
        parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
        completed = client.complete_multipart_upload(
            **members, UploadId=begun, MultipartUpload=parts, **condition
        )
        return str(completed["ETag"])

    def refusal(**condition: str) -> str:
        with pytest.raises(ClientError) as caught:
            put(b"refused", **condition)
        return str(caught.value.response["Error"]["Code"])

    assert refusal(IfMatch="*") == "NoSuchKey"
    first = put(b"1", IfNoneMatch='"0"')
    assert refusal(IfNoneMatch=first) == refusal(IfNoneMatch="*") == "PreconditionFailed"
    second = put(b"2", IfNoneMatch='"0"')
    third = put(b"3", IfMatch="*")
    assert refusal(IfMatch=second) == "PreconditionFailed"
    put(b"4", IfMatch=third)
    assert client.get_object(Bucket="bucket", Key="a//b")["Body"].read() == b"4"
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    for condition in ("*", '"0"', third):
        client.delete_object(Bucket="bucket", Key="a//b")
        assert refusal(IfMatch="*") == refusal(IfMatch=third) == "NoSuchKey"
        put(b"5", IfNoneMatch=condition)
    assert refusal(IfNoneMatch="*") == "PreconditionFailed"


def test_deletions_of_versions_at_once(client: Any) -> None:
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(4):
        for key in ("a", "b"):
            client.put_object(Bucket="bucket", Key=key)
    versions = client.list_object_versions(Bucket="bucket")["Versions"]
    objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(client.delete_objects, Bucket="bucket", Delete={"Objects": objects})
            for _ in range(6)
        ]
    assert all(len(call.result()["Deleted"]) == len(objects) for call in calls)
    assert "Versions" not in client.list_object_versions(Bucket="bucket")


def test_an_upload_that_is_completed_again_tells_its_checksum(client: Any) -> None:
    members = {"Bucket": "bucket", "Key": "k"}
    begun = client.create_multipart_upload(**members, ChecksumAlgorithm="SHA256")["UploadId"]
    part = client.upload_part(**members, UploadId=begun, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]}
    replies = [
        client.complete_multipart_upload(**members, UploadId=begun, MultipartUpload=parts) for _ in range(2)
    ]
    names = ("ETag", "ChecksumSHA256", "ChecksumType")
    assert [replies[0][name] for name in names] == [replies[1][name] for name in names]


def test_objects_remember_their_parts(client: Any) -> None:
    members = {"Bucket": "bucket", "Key": "k"}
    begun = client.create_multipart_upload(**members)["UploadId"]
    bodies = [b"a" * 5 * MIB, b"b" * (5 * MIB + 7), b"c"]
    parts = []
    for number, body in enumerate(bodies, start=1):
        etag = client.upload_part(**members, UploadId=begun, PartNumber=number, Body=body)["ETag"]
        parts.append({"ETag": etag, "PartNumber": number})
    client.complete_multipart_upload(**members, UploadId=begun, MultipartUpload={"Parts": parts})
    for number, body in enumerate(bodies, start=1):
        reply = client.get_object(**members, PartNumber=number)
        assert (reply["PartsCount"], reply["Body"].read()) == (3, body)
    asked = client.get_object_attributes(
        **members, ObjectAttributes=["ObjectParts", "ObjectSize"], MaxParts=2
    )
    known = asked["ObjectParts"]
    assert (known["TotalPartsCount"], known["IsTruncated"], known["NextPartNumberMarker"]) == (3, True, 2)
    rest = client.get_object_attributes(**members, ObjectAttributes=["ObjectParts"], PartNumberMarker=2)
    listed = [*known["Parts"], *rest["ObjectParts"]["Parts"]]
    assert [each["Size"] for each in listed] == [len(body) for body in bodies]
    assert rest["ObjectParts"]["IsTruncated"] is False
    assert "ObjectParts" not in client.get_object_attributes(**members, ObjectAttributes=["ETag"])


def _upload_parts(client: Any, algorithm: str, bodies: list[bytes], key: str = "k") -> list[str]:
    """The checksums of the parts."""
    members = {"Bucket": "bucket", "Key": key}
    begun = client.create_multipart_upload(**members, ChecksumAlgorithm=algorithm)["UploadId"]
    name = f"Checksum{algorithm}"
    parts = []
    for number, body in enumerate(bodies, start=1):
        part = client.upload_part(
            **members, UploadId=begun, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], name: part[name]})
    client.complete_multipart_upload(**members, UploadId=begun, MultipartUpload={"Parts": parts})
    return [part[name] for part in parts]


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_objects_remember_the_checksums_of_their_parts(client: Any, algorithm: str) -> None:
    name = f"Checksum{algorithm}"
    sums = _upload_parts(client, algorithm, [b"a" * 5 * MIB, b"b"])
    members = {"Bucket": "bucket", "Key": "k"}
    kind = client.head_object(**members, ChecksumMode="ENABLED")["ChecksumType"]
    for number, expected in enumerate(sums, start=1):
        for read in (client.get_object, client.head_object):
            reply = read(**members, PartNumber=number, ChecksumMode="ENABLED")
            assert (reply[name], reply["ChecksumType"]) == (expected, kind)
        assert name not in client.head_object(**members, PartNumber=number)
    known = client.get_object_attributes(**members, ObjectAttributes=["ObjectParts", "Checksum"])
    assert [part[name] for part in known["ObjectParts"]["Parts"]] == sums


def test_the_checksums_of_parts_go_with_their_version(client: Any) -> None:
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    expected = [_upload_parts(client, "SHA256", [body, b"end"]) for body in (b"a" * 5 * MIB, b"b" * 5 * MIB)]
    client.put_object(Bucket="bucket", Key="k", Body=b"in one piece")
    versions = client.list_object_versions(Bucket="bucket")["Versions"]
    seen = []
    for version in versions:
        asked = {"Bucket": "bucket", "Key": "k", "VersionId": version["VersionId"]}
        known = client.get_object_attributes(**asked, ObjectAttributes=["ObjectParts"])
        parts = known.get("ObjectParts", {}).get("Parts", [])
        seen.append([part["ChecksumSHA256"] for part in parts])
    assert seen == [[], expected[1], expected[0]]


def test_checksums_of_more_parts_than_fit_are_not_kept(client: Any) -> None:
    members = {"Bucket": "bucket", "Key": "k"}
    sums = _upload_parts(client, "SHA256", [b"a" * 5 * MIB] * 33)
    assert len(sums) == 33
    assert "ChecksumSHA256" not in client.head_object(**members, PartNumber=2, ChecksumMode="ENABLED")
    assert client.head_object(**members, ChecksumMode="ENABLED")["ChecksumSHA256"].endswith("-33")
    known = client.get_object_attributes(**members, ObjectAttributes=["ObjectParts"])["ObjectParts"]
    assert known["TotalPartsCount"] == 33


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_what_never_was_gets_a_delete_marker(client: Any, status: str, at_once: bool) -> None:
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": status})
    key = "below/never"
    if at_once:
        entries = {"Objects": [{"Key": key}, {"Key": "other"}]}
        replies = client.delete_objects(Bucket="bucket", Delete=entries)["Deleted"]
        (reply,) = [each for each in replies if each["Key"] == key]
        version = reply["DeleteMarkerVersionId"]
        client.delete_object(Bucket="bucket", Key="other", VersionId=replies[1]["DeleteMarkerVersionId"])
    else:
        reply = client.delete_object(Bucket="bucket", Key=key)
        version = reply["VersionId"]
    assert reply["DeleteMarker"]
    assert (version == "null") == (status == "Suspended")
    (marker,) = client.list_object_versions(Bucket="bucket")["DeleteMarkers"]
    assert (marker["Key"], marker["VersionId"], marker["IsLatest"]) == (key, version, True)
    assert "Contents" not in client.list_objects_v2(Bucket="bucket")
    status_code, _, headers = refused(client.head_object, Key=key)
    assert (status_code, headers["x-amz-delete-marker"]) == (404, "true")
    client.put_object(Bucket="bucket", Key=key, Body=b"now it is")
    assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == b"now it is"
    for listed in ("Versions", "DeleteMarkers"):
        for each in client.list_object_versions(Bucket="bucket").get(listed, []):
            client.delete_object(Bucket="bucket", Key=key, VersionId=each["VersionId"])
    client.delete_bucket(Bucket="bucket")


def test_where_nothing_can_be_there_is_no_delete_marker(client: Any) -> None:
    client.put_object(Bucket="bucket", Key="file")
    client.put_object(Bucket="bucket", Key="directory/x")
    assert "DeleteMarker" not in client.delete_object(Bucket="bucket", Key="without-versions")
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    for key in ("file/below", "directory", "new-directory/"):
        assert "DeleteMarker" not in client.delete_object(Bucket="bucket", Key=key)
    assert "DeleteMarkers" not in client.list_object_versions(Bucket="bucket")
