"""A bucket is deleted while objects are written to it: whatever was acknowledged is there."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import S3Program

ROUNDS = 150


def put(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x" * 100_000)


def complete(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="a/b")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="a/b", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="a/b", UploadId=upload, MultipartUpload=parts)


def copy(s3: Any, bucket: str) -> None:
    s3.copy_object(Bucket=bucket, Key="a/b", CopySource={"Bucket": "source", "Key": "k"})


@pytest.mark.parametrize("write", [put, complete, copy])
def test_no_acknowledged_object_goes_with_its_bucket(s3: S3Program, write: Callable[..., None]) -> None:
    client, other = s3.client(), s3.client()
    client.create_bucket(Bucket="source")
    client.put_object(Bucket="source", Key="k", Body=b"x" * 100_000)

    def succeeds(call: Callable[[], object]) -> bool:
        try:
            call()
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(1) as deletions:
        for number in range(ROUNDS):
            bucket = f"bucket-{number}"
            client.create_bucket(Bucket=bucket)
            deletion = deletions.submit(succeeds, lambda bucket=bucket: other.delete_bucket(Bucket=bucket))
            written = succeeds(lambda bucket=bucket: write(client, bucket))
            assert not (written and deletion.result()), "an acknowledged object was deleted with its bucket"
            deletion.result()
