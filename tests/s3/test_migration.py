"""A data directory of the release before, whose embedded S3 was rclone: buckets get an owner, objects stay."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.s3.program import A, B, S3Program
from tests.servers import MoorageServer

FIXTURE = Path(__file__).with_name("made_with_rclone.tar.gz")
KNOWN_EVERYWHERE = (".json", ".html", ".png")
"""Extensions whose type does not depend on the machine's own tables."""

Expected = dict[str, dict[str, Any]]


@pytest.fixture
def old(new_s3: Callable[..., S3Program], tmp_path: Path) -> tuple[S3Program, Expected]:
    """The S3 on the old directory, not started, and what rclone answered: size and type of each `bucket/key`."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return new_s3(), json.loads((tmp_path / "expected.json").read_text())


def test_objects_keep_bytes_and_types(old: tuple[S3Program, Expected]) -> None:
    s3, expected = old
    bytes_of = {name: (s3.root / name).read_bytes() for name in expected}
    client = s3.start().client(A)
    found = {
        f"{bucket['Name']}/{entry['Key']}": entry
        for bucket in client.list_buckets()["Buckets"]
        for entry in client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
    }
    assert found.keys() == expected.keys()
    for name, was in expected.items():
        bucket, _, key = name.partition("/")
        reply = client.get_object(Bucket=bucket, Key=key)
        assert reply["Body"].read() == bytes_of[name]
        assert (reply["ContentLength"], reply["LastModified"].isoformat()) == (was["size"], was["modified"])
        assert reply["ETag"] == found[name]["ETag"]
        assert reply["ETag"].endswith('-1"')
        if key.endswith(KNOWN_EVERYWHERE) or was["type"] == "application/octet-stream":
            assert reply["ContentType"] == was["type"]
        else:
            assert reply["ContentType"] in (was["type"], "application/octet-stream")
    assert client.list_object_versions(Bucket="models")["Versions"]


def test_all_buckets_belong_to_the_one_account(old: tuple[S3Program, Expected]) -> None:
    s3, _ = old
    s3.start()
    names = {"models", "empty-bucket", "results.2025"}
    assert {bucket["Name"] for bucket in s3.client(A).list_buckets()["Buckets"]} == names
    assert s3.client(B).list_buckets()["Buckets"] == []
    assert s3.client(A).get_bucket_ownership_controls(Bucket="models")["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}
    ]


def test_what_rclone_left_of_uploads_is_removed(old: tuple[S3Program, Expected]) -> None:
    s3, expected = old
    assert list(s3.root.rglob(".rclone_temp_*"))
    s3.start()
    left = {str(path.relative_to(s3.root)) for path in s3.root.rglob("*") if path.is_file()}
    assert left == {*expected, ".moorage-s3"}
    assert not (s3.root / "models" / "cut").exists()


def test_a_whole_server_starts_on_it(
    old: tuple[S3Program, Expected], new_server: Callable[..., MoorageServer]
) -> None:
    """The root key of the directory's own account reaches what it did before."""
    s3, expected = old
    client = new_server(s3.data_dir.name).client("s3")
    assert client.get_object(Bucket="models", Key="churn/notes.txt")["Body"].read() == b"kept\n"
    listed = client.list_objects_v2(Bucket="models")["Contents"]
    assert {f"models/{entry['Key']}" for entry in listed} == {
        name for name in expected if name.startswith("models/")
    }
    client.put_object(Bucket="empty-bucket", Key="new", Body=b"1")
    client.delete_object(Bucket="models", Key="data/train.csv")


def test_etags_stay_for_as_long_as_the_object_does(old: tuple[S3Program, Expected]) -> None:
    s3, _ = old
    client = s3.start().client(A)
    where = {"Bucket": "models", "Key": "churn/1/model.tar.gz"}
    etag = client.head_object(**where)["ETag"]
    client.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    s3.kill()
    client = s3.start().client(A)
    assert client.head_object(**where)["ETag"] == etag
    assert client.get_object_tagging(**where)["TagSet"] == [{"Key": "a", "Value": "b"}]
    second = client.put_object(**where, Body=b"second")
    earlier = client.head_object(**where, VersionId="null")
    assert earlier["ETag"] == etag, "an earlier version is the same object"
    assert earlier["ContentType"].endswith(("gzip", "octet-stream"))
    assert client.head_object(**where)["ETag"] == second["ETag"] != etag
    copied = client.copy_object(
        Bucket="models", Key="copy", CopySource={"Bucket": "models", "Key": "data/train.csv"}
    )
    assert copied["CopyObjectResult"]["ETag"] == '"e5ebd4c02cefbe7955977c67ada242b7"', (
        "the MD5 of what was copied"
    )


def test_another_file_in_its_place_is_another_object(old: tuple[S3Program, Expected]) -> None:
    s3, _ = old
    client = s3.start().client(A)
    first = client.head_object(Bucket="models", Key="x.npy")["ETag"]
    path = s3.root / "models" / "x.npy"
    path.write_bytes(b"OTHER")
    os.utime(path, (1, 1))
    assert client.head_object(Bucket="models", Key="x.npy")["ETag"] != first


def test_a_bucket_that_is_copied_into_the_directory_later_gets_an_owner(s3: S3Program) -> None:
    s3.stop()
    (s3.root / "copied").mkdir()
    (s3.root / "copied" / "a.json").write_text("{}")
    (s3.root / "unfinished").mkdir()
    client = s3.start().client(A)
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["copied"]
    assert client.get_object(Bucket="copied", Key="a.json")["ContentType"] == "application/json"
    s3.client(B).create_bucket(Bucket="unfinished")


def test_a_start_does_not_read_the_objects(new_s3: Callable[..., S3Program]) -> None:
    """Sparse files: reading them would take minutes."""
    s3 = new_s3()
    bucket = s3.root / "models"
    bucket.mkdir(parents=True)
    if shutil.disk_usage(bucket).total < 2**30:
        pytest.skip("the disk is too small")
    for number in range(50):
        with (bucket / f"{number}.bin").open("wb") as file:
            file.truncate(2**30)
    client = s3.start().client(A)
    entries = client.list_objects_v2(Bucket="models")["Contents"]
    assert len(entries) == 50
    assert {entry["Size"] for entry in entries} == {2**30}
