"""What a request to S3 needs, for the requests that boto3 makes."""

from typing import Any

import pytest

from moorage.gateway.s3.needs import Signed, conditions, need_of_deletion, needs
from moorage.gateway.s3.reading import read
from tests.gateway.s3.sent import sent

BUCKET, OBJECT = "arn:aws:s3:::b", "arn:aws:s3:::b/folder/a b"
NAMED = {"Bucket": "b", "Key": "folder/a b"}
UPLOAD = {**NAMED, "UploadId": "1"}


def asked(operation: str, **members: Any) -> list[tuple[str, str]]:
    return [(need.action, need.resource) for need in needs(read(*sent(operation, **members)))]


@pytest.mark.parametrize(
    ("operation", "members", "action", "resource"),
    [
        ("list_buckets", {}, "s3:ListAllMyBuckets", "*"),
        ("create_bucket", {"Bucket": "b"}, "s3:CreateBucket", BUCKET),
        ("head_bucket", {"Bucket": "b"}, "s3:ListBucket", BUCKET),
        ("delete_bucket", {"Bucket": "b"}, "s3:DeleteBucket", BUCKET),
        ("list_objects", {"Bucket": "b"}, "s3:ListBucket", BUCKET),
        ("list_objects_v2", {"Bucket": "b", "Prefix": "x"}, "s3:ListBucket", BUCKET),
        ("list_object_versions", {"Bucket": "b"}, "s3:ListBucketVersions", BUCKET),
        ("get_bucket_location", {"Bucket": "b"}, "s3:GetBucketLocation", BUCKET),
        ("get_bucket_policy", {"Bucket": "b"}, "s3:GetBucketPolicy", BUCKET),
        ("list_multipart_uploads", {"Bucket": "b"}, "s3:ListBucketMultipartUploads", BUCKET),
        ("get_object", NAMED, "s3:GetObject", OBJECT),
        ("get_object", {**NAMED, "VersionId": "v"}, "s3:GetObjectVersion", OBJECT),
        ("head_object", NAMED, "s3:GetObject", OBJECT),
        ("put_object", {**NAMED, "Body": b"x"}, "s3:PutObject", OBJECT),
        ("delete_object", NAMED, "s3:DeleteObject", OBJECT),
        ("delete_object", {**NAMED, "VersionId": "v"}, "s3:DeleteObjectVersion", OBJECT),
        ("create_multipart_upload", NAMED, "s3:PutObject", OBJECT),
        ("upload_part", {**UPLOAD, "PartNumber": 1, "Body": b"x"}, "s3:PutObject", OBJECT),
        ("complete_multipart_upload", UPLOAD, "s3:PutObject", OBJECT),
        ("abort_multipart_upload", UPLOAD, "s3:AbortMultipartUpload", OBJECT),
        ("list_parts", UPLOAD, "s3:ListMultipartUploadParts", OBJECT),
        ("get_object_tagging", NAMED, "s3:GetObjectTagging", OBJECT),
        ("get_object_tagging", {**NAMED, "VersionId": "v"}, "s3:GetObjectVersionTagging", OBJECT),
        ("delete_object_tagging", NAMED, "s3:DeleteObjectTagging", OBJECT),
    ],
)
def test_each_operation_needs_its_action(
    operation: str, members: dict[str, Any], action: str, resource: str
) -> None:
    assert asked(operation, **members) == [(action, resource)]


def test_tags_of_a_new_object_need_an_action_of_their_own() -> None:
    assert asked("put_object", **NAMED, Tagging="a=b") == [
        ("s3:PutObject", OBJECT),
        ("s3:PutObjectTagging", OBJECT),
    ]


def test_attributes_are_read_from_the_object() -> None:
    assert asked("get_object_attributes", **NAMED, ObjectAttributes=["ETag"]) == [
        ("s3:GetObjectAttributes", OBJECT),
        ("s3:GetObject", OBJECT),
    ]


@pytest.mark.parametrize(
    ("operation", "members"), [("copy_object", NAMED), ("upload_part_copy", {**UPLOAD, "PartNumber": 1})]
)
def test_a_copy_needs_to_read_what_it_copies(operation: str, members: dict[str, Any]) -> None:
    for source, action in (
        ({"Bucket": "other", "Key": "from here+ü"}, "s3:GetObject"),
        ({"Bucket": "other", "Key": "from here+ü", "VersionId": "v"}, "s3:GetObjectVersion"),
    ):
        assert asked(operation, **members, CopySource=source) == [
            ("s3:PutObject", OBJECT),
            (action, "arn:aws:s3:::other/from here+ü"),
        ]


def test_each_deleted_key_is_a_need_of_its_own() -> None:
    assert need_of_deletion("b", "k", None)[:2] == ("s3:DeleteObject", "arn:aws:s3:::b/k")
    assert need_of_deletion("b", "k", "v")[:2] == ("s3:DeleteObjectVersion", "arn:aws:s3:::b/k")


def context(operation: str, index: int = 0, **members: Any) -> dict[str, Any]:
    request = read(*sent(operation, **members))
    found = conditions(request, list(needs(request))[index], Signed("REST-HEADER", "AWS4-HMAC-SHA256"))
    return {key: value for key, value in found.items() if key != "s3:x-amz-content-sha256"}


@pytest.mark.parametrize(
    ("operation", "members", "expected"),
    [
        ("list_objects_v2", {"Bucket": "b"}, {}),
        (
            "list_objects_v2",
            {"Bucket": "b", "Prefix": "p/", "Delimiter": "/", "MaxKeys": 7},
            {"s3:prefix": "p/", "s3:delimiter": "/", "s3:max-keys": "7"},
        ),
        ("list_objects_v2", {"Bucket": "b", "Prefix": ""}, {"s3:prefix": ""}),
        ("list_multipart_uploads", {"Bucket": "b", "Prefix": "p/"}, {}),
        ("get_object", {**NAMED, "VersionId": "v"}, {"s3:VersionId": "v"}),
        ("put_object", {**NAMED, "ACL": "private"}, {"s3:x-amz-acl": "private"}),
        (
            "put_object",
            {**NAMED, "Tagging": "a=b%20c&d="},
            {
                "s3:RequestObjectTag/a": "b c",
                "s3:RequestObjectTag/d": "",
                "s3:RequestObjectTagKeys": ("a", "d"),
            },
        ),
        (
            "copy_object",
            {**NAMED, "CopySource": "o/k", "MetadataDirective": "REPLACE"},
            {"s3:x-amz-copy-source": "o/k", "s3:x-amz-metadata-directive": "REPLACE"},
        ),
    ],
)
def test_conditions_see_what_the_request_tells(
    operation: str, members: dict[str, Any], expected: dict[str, Any]
) -> None:
    common = {"s3:authType": "REST-HEADER", "s3:signatureversion": "AWS4-HMAC-SHA256"}
    assert context(operation, **members) == {**common, **expected}


def test_the_version_of_a_source_is_that_of_the_reading() -> None:
    copy = {**NAMED, "CopySource": {"Bucket": "o", "Key": "k", "VersionId": "v"}}
    assert "s3:VersionId" not in context("copy_object", 0, **copy)
    assert context("copy_object", 1, **copy)["s3:VersionId"] == "v"
