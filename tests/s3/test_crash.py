"""`kill -9` of the embedded S3 while it is written to: what it said it has is there, and nothing else. Of a whole
server that is killed: `tests/faults/test_s3_kill.py`."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.s3.program import S3Program

MIB = 1024 * 1024


@pytest.fixture(params=["attributes", "side directory"])
def s3(request: pytest.FixtureRequest, new_s3: Callable[..., S3Program]) -> S3Program:
    made = new_s3()
    if request.param == "side directory":
        make_without_attributes(made)
    return made.start()


def make_without_attributes(s3: S3Program) -> None:
    """As on a file system that has none: a side directory that was used is used on."""
    (s3.data_dir / "s3-metadata" / "earlier").mkdir(parents=True)


Upload = tuple[str, bytes, dict[str, str]]
"""Key, body and metadata."""


def uploads(count: int) -> Iterator[Upload]:
    for number in range(count):
        body = f"{number} ".encode() * (20_000 if number % 7 else 100_000)
        yield f"d{number % 5}/{number}/k", body, {"number": str(number)}


class Uploading:
    """Five hundred uploads, by eight threads with a client each, to a bucket that is there."""

    def __init__(self, new_client: Callable[[], Any]) -> None:
        self._sent = list(uploads(500))
        self.acknowledged: set[str] = set()
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(new_client(), self._sent[number::8]))
            for number in range(8)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_some(self) -> None:
        assert self._enough.wait(60)

    def wait_for_all(self) -> None:
        for thread in self._threads:
            thread.join()

    def check(self, client: Any, bucket: Path) -> None:
        """What was acknowledged is there; what nobody was told of may be there, but then it is whole; else there is
        nothing. `bucket` is its directory."""
        by_key = {key: (body, metadata) for key, body, metadata in self._sent}
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name)
        listed = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
        assert self.acknowledged <= listed
        for key in listed:
            reply = client.get_object(Bucket=bucket.name, Key=key)
            assert (reply["Body"].read(), reply["Metadata"]) == by_key[key]
            assert reply["ContentType"] == "text/x-number"
        parents = {str(parent) for key in listed for parent in Path(key).parents} | {".", ".sgwtmp"}
        found = {str(path.relative_to(bucket)) for path in bucket.rglob("*")}
        assert found - listed - parents == set()

    def _send(self, client: Any, share: list[Upload]) -> None:
        for key, body, metadata in share:
            with suppress(BotoCoreError, ClientError, OSError):
                client.put_object(
                    Bucket="bucket", Key=key, Body=body, Metadata=metadata, ContentType="text/x-number"
                )
                self.acknowledged.add(key)
                if len(self.acknowledged) == 60:
                    self._enough.set()


def test_during_five_hundred_uploads(s3: S3Program) -> None:
    s3.client().create_bucket(Bucket="bucket")
    uploading = Uploading(s3.client)
    uploading.wait_for_some()
    s3.kill()
    uploading.wait_for_all()
    assert 60 <= len(uploading.acknowledged) < 500
    client = s3.start().client()
    uploading.check(client, s3.root / "bucket")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page["Contents"]:
            client.delete_object(Bucket="bucket", Key=entry["Key"])
    client.delete_bucket(Bucket="bucket")


def test_an_upload_in_parts_goes_on(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    upload = client.create_multipart_upload(Bucket="bucket", Key="k", Metadata={"a": "1"})["UploadId"]
    where = {"Bucket": "bucket", "Key": "k", "UploadId": upload}
    first = client.upload_part(**where, PartNumber=1, Body=b"1" * 5 * MIB)["ETag"]
    s3.kill()
    directory = next((s3.root / "bucket" / ".sgwtmp" / "multipart").iterdir())
    (directory / upload / f"{'0' * 64}.123").write_bytes(b"part of a part")
    (directory / upload).rename(directory / f"{upload}.{'0' * 32}-2.inprogress")  # as while it is completed
    side = s3.data_dir / "s3-metadata" / "bucket" / ".sgwtmp" / "multipart" / directory.name
    if (side / upload).exists():
        (side / upload).rename(side / f"{upload}.{'0' * 32}-2.inprogress")
    client = s3.start().client()
    second = client.upload_part(**where, PartNumber=2, Body=b"2")["ETag"]
    assert [part["PartNumber"] for part in client.list_parts(**where)["Parts"]] == [1, 2]
    parts: Any = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    reply = client.get_object(Bucket="bucket", Key="k")
    assert (reply["Body"].read(), reply["Metadata"]) == (b"1" * 5 * MIB + b"2", {"a": "1"})
    assert not any((s3.root / "bucket" / ".sgwtmp").rglob("*.*"))


def test_directory_objects_stay(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="marked/", Body=b"")
    client.put_object(Bucket="bucket", Key="with/object", Body=b"x")
    (s3.root / "bucket" / "made/for/nothing").mkdir(parents=True)
    s3.kill()
    client = s3.start().client()
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket")["Contents"]]
    assert keys == ["marked/", "with/object"]
    assert not (s3.root / "bucket" / "made").exists()
