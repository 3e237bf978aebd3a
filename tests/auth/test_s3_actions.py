"""What a request to S3 needs, for the requests that boto3 makes."""

from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest

from moorage.auth.s3_actions import needs

BUCKET, OBJECT = "arn:aws:s3:::b", "arn:aws:s3:::b/folder/a b"
NAMED = {"Bucket": "b", "Key": "folder/a b"}


def sent(operation: str, **members: Any) -> list[tuple[str, str]]:
    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    seen: list[AWSPreparedRequest] = []

    class Caught(Exception):
        pass

    def catch(request: AWSPreparedRequest, **_: object) -> None:
        seen.append(request)
        raise Caught

    client.meta.events.register("before-send.s3", catch)
    with pytest.raises(Caught):
        getattr(client, operation)(**members)
    [request] = seen
    assert request.url is not None
    target = request.url.removeprefix("http://127.0.0.1:9").encode()
    headers = {
        name.lower().encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in request.headers.items()
    }
    return needs(str(request.method).encode(), target, headers)


@pytest.mark.parametrize(
    ("operation", "members", "action", "resource"),
    [
        ("list_buckets", {}, "s3:ListAllMyBuckets", "*"),
        ("create_bucket", {"Bucket": "b"}, "s3:CreateBucket", BUCKET),
        ("head_bucket", {"Bucket": "b"}, "s3:ListBucket", BUCKET),
        ("delete_bucket", {"Bucket": "b"}, "s3:DeleteBucket", BUCKET),
        ("list_objects_v2", {"Bucket": "b", "Prefix": "x"}, "s3:ListBucket", BUCKET),
        ("get_bucket_location", {"Bucket": "b"}, "s3:GetBucketLocation", BUCKET),
        ("list_multipart_uploads", {"Bucket": "b"}, "s3:ListBucketMultipartUploads", BUCKET),
        ("get_object", NAMED, "s3:GetObject", OBJECT),
        ("head_object", NAMED, "s3:GetObject", OBJECT),
        ("put_object", {**NAMED, "Body": b"x"}, "s3:PutObject", OBJECT),
        ("delete_object", NAMED, "s3:DeleteObject", OBJECT),
        ("create_multipart_upload", NAMED, "s3:PutObject", OBJECT),
        ("upload_part", {**NAMED, "UploadId": "1", "PartNumber": 1, "Body": b"x"}, "s3:PutObject", OBJECT),
        ("complete_multipart_upload", {**NAMED, "UploadId": "1"}, "s3:PutObject", OBJECT),
        ("abort_multipart_upload", {**NAMED, "UploadId": "1"}, "s3:AbortMultipartUpload", OBJECT),
        ("list_parts", {**NAMED, "UploadId": "1"}, "s3:ListMultipartUploadParts", OBJECT),
        ("get_object_tagging", NAMED, "s3:GetObjectTagging", OBJECT),
        (
            "delete_objects",
            {"Bucket": "b", "Delete": {"Objects": [{"Key": "k"}]}},
            "s3:DeleteObject",
            f"{BUCKET}/*",
        ),
    ],
)
def test_each_operation_needs_its_action(
    operation: str, members: dict[str, Any], action: str, resource: str
) -> None:
    assert sent(operation, **members) == [(action, resource)]


def test_a_copy_needs_to_read_what_it_copies() -> None:
    source = {"Bucket": "other", "Key": "from here"}
    assert sent("copy_object", **NAMED, CopySource=source) == [
        ("s3:PutObject", OBJECT),
        ("s3:GetObject", "arn:aws:s3:::other/from here"),
    ]


def test_what_is_not_known_needs_everything() -> None:
    assert needs(b"PATCH", b"/b/k", {}) == [("s3:*", f"{BUCKET}/k")]
    assert needs(b"POST", b"/", {}) == [("s3:*", "*")]
