"""A bucket is deleted while objects are written to it: what is being written is not lost with it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import S3Program

HALF = 256 * 1024


class HalfSent:
    """The body of an upload that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self._position = 0

    def __len__(self) -> int:
        return 2 * HALF

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> None:
        self._position = position if whence == 0 else 2 * HALF + position

    def read(self, size: int = -1) -> bytes:
        if self._position == HALF:
            self.begun.set()
            assert self.goes_on.wait(30)
        piece = b"x" * min(
            size if size >= 0 else 2 * HALF, HALF - self._position % HALF, 2 * HALF - self._position
        )
        self._position += len(piece)
        return piece


def test_no_bucket_is_deleted_under_an_upload(s3: S3Program) -> None:
    client = s3.client(
        s3={"payload_signing_enabled": False, "addressing_style": "path"},
        request_checksum_calculation="when_required",
    )
    client.create_bucket(Bucket="bucket")
    body = HalfSent()
    failures: list[Any] = []

    def upload() -> None:
        try:
            client.put_object(Bucket="bucket", Key="a/b", Body=body)
        except Exception as error:
            failures.append(error)

    uploading = threading.Thread(target=upload)
    uploading.start()
    assert body.begun.wait(30)
    with pytest.raises(ClientError) as refused:
        s3.client().delete_bucket(Bucket="bucket")
    assert refused.value.response["Error"]["Code"] == "BucketNotEmpty"
    body.goes_on.set()
    uploading.join()
    assert not failures
    assert client.head_object(Bucket="bucket", Key="a/b")["ContentLength"] == 2 * HALF
    client.delete_object(Bucket="bucket", Key="a/b")
    client.delete_bucket(Bucket="bucket")


def test_no_delete_marker_brings_a_bucket_back(s3: S3Program) -> None:
    client = s3.client()
    for number in range(20):
        bucket = f"bucket-{number}"
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        begun = threading.Barrier(5)

        def mark(key: str, bucket: str = bucket, begun: threading.Barrier = begun) -> str:
            begun.wait(30)
            return outcome(client.delete_object, Bucket=bucket, Key=f"a/b/{key}")

        with ThreadPoolExecutor(4) as threads:
            marking = [threads.submit(mark, key) for key in "0123"]
            begun.wait(30)
            deleted = outcome(client.delete_bucket, Bucket=bucket)
            outcomes = {each.result() for each in marking}
        is_there = bucket in [each["Name"] for each in client.list_buckets()["Buckets"]]
        assert (deleted, is_there) in [("done", False), ("BucketNotEmpty", True)]
        assert outcomes <= ({"done"} if is_there else {"NoSuchBucket"})


def outcome(operation: Callable[..., Any], **members: str) -> str:
    try:
        operation(**members)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"
