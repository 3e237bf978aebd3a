"""The program of the embedded S3 by itself: its accounts, its socket, its beginning and its end."""

import http.client
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.s3.program import A, B, S3Program


def refusal(call: Callable[..., object], **arguments: object) -> str:
    """The code of the error that a call is answered with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_buckets_belong_to_the_account_that_made_them(s3: S3Program) -> None:
    a, b = s3.client(A), s3.client(B)
    a.create_bucket(Bucket="models")
    a.put_object(Bucket="models", Key="m/model.tar.gz", Body=b"weights", Metadata={"by": "a"})
    assert a.get_object(Bucket="models", Key="m/model.tar.gz")["Body"].read() == b"weights"
    assert b.list_buckets()["Buckets"] == []
    b.create_bucket(Bucket="others")
    assert [bucket["Name"] for bucket in a.list_buckets()["Buckets"]] == ["models"]
    for call, arguments in (
        (b.get_object, {"Key": "m/model.tar.gz"}),
        (b.put_object, {"Key": "m/model.tar.gz", "Body": b"mine"}),
        (b.delete_object, {"Key": "m/model.tar.gz"}),
        (b.list_objects_v2, {}),
        (b.delete_bucket, {}),
    ):
        assert refusal(call, Bucket="models", **arguments) == "AccessDenied"
    source = {"Bucket": "models", "Key": "m/model.tar.gz"}
    assert refusal(b.copy_object, Bucket="others", Key="stolen", CopySource=source) == "AccessDenied"
    assert refusal(b.create_bucket, Bucket="models") == "BucketAlreadyExists"


@pytest.mark.parametrize("account", ["11111111111", "1111111111111", "moorage2", "11111111111a", "", "../a"])
def test_only_accounts_of_twelve_digits_exist(s3: S3Program, account: str) -> None:
    codes = {"InvalidAccessKeyId", "AuthorizationHeaderMalformed", "InvalidArgument", "AccessDenied"}
    assert refusal(s3.client(account).list_buckets) in codes


def test_a_wrong_secret_is_refused(s3: S3Program) -> None:
    client = s3.client(A)
    client._request_signer._credentials.secret_key = s3.accounts.secret_of(B)
    assert refusal(client.list_buckets) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("PATCH", f"/{name}") for name in ("create-user", "delete-user", "update-user", "list-users")),
        ("PATCH", "/change-bucket-owner?bucket=models&owner=111111111111"),
        ("PATCH", "/list-buckets"),
        ("PATCH", "/models/create"),
    ],
)
def test_there_is_no_administration_by_http(s3: S3Program, method: str, path: str) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(s3.socket))
    connection.request(method, path)
    reply = connection.getresponse()
    assert reply.status in (400, 404, 405, 501)
    connection.close()


def test_what_it_writes_is_private(s3: S3Program) -> None:
    s3.client().create_bucket(Bucket="bucket")
    s3.client().put_object(Bucket="bucket", Key="d/k", Body=b"x")
    for path in (s3.socket, *s3.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_ISSOCK(s3.socket.stat().st_mode)


def test_objects_keep_what_they_were_given(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    client.put_object(
        Bucket="bucket",
        Key="k",
        Body=b"x" * 1000,
        Metadata={"a": "1"},
        ContentType="text/csv",
        CacheControl="no-store",
    )
    client.put_object_tagging(
        Bucket="bucket", Key="k", Tagging={"TagSet": [{"Key": "stage", "Value": "prod"}]}
    )
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.kill()
    s3.start()
    client = s3.client()
    found = client.get_object(Bucket="bucket", Key="k")
    assert found["Body"].read() == b"x" * 1000
    assert (found["Metadata"], found["ContentType"], found["CacheControl"]) == (
        {"a": "1"},
        "text/csv",
        "no-store",
    )
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == [
        {"Key": "stage", "Value": "prod"}
    ]
    second = client.put_object(Bucket="bucket", Key="k", Body=b"new")["VersionId"]
    client.delete_object(Bucket="bucket", Key="k")
    assert client.get_object(Bucket="bucket", Key="k", VersionId=second)["Body"].read() == b"new"
    versions = client.list_object_versions(Bucket="bucket")["Versions"]
    assert [version["VersionId"] for version in versions] == [second, "null"]


def test_it_ends_when_told_to_and_takes_the_place_of_a_dead_one(s3: S3Program) -> None:
    s3.client().create_bucket(Bucket="bucket")  # its connection stays open
    assert s3.stop() == 0
    s3.start()
    s3.kill()
    assert s3.socket.exists()
    s3.start()
    assert [bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]] == ["bucket"]


def test_it_dies_with_its_parent(new_s3: Callable[..., S3Program]) -> None:
    s3 = new_s3()
    s3.data_dir.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *s3.command],
        env=s3.environment,
        stderr=subprocess.PIPE,
    )
    assert parent.stderr is not None
    assert parent.stderr.readline()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stderr.read()  # until the last process that has it open has ended
    parent.stderr.close()


@pytest.mark.parametrize("key", ["", "abc", "00" * 31])
def test_without_a_master_key_it_says_so(new_s3: Callable[..., S3Program], key: str) -> None:
    s3 = new_s3()
    done = subprocess.run(
        s3.command, env={"MOORAGE_S3_KEY": key}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "MOORAGE_S3_KEY must hold a key of at least 32 bytes" in done.stderr


def test_where_files_have_no_attributes_a_directory_has_the_metadata(
    new_s3: Callable[..., S3Program], tmp_path: Path
) -> None:
    """On a file system without extended attributes; and later on one that has them, to which all was copied."""
    folder = tmp_path / "without"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "ramfs", "ramfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        s3 = new_s3("without").start()
        client = s3.client()
        client.create_bucket(Bucket="bucket")
        client.put_object(
            Bucket="bucket", Key="a//k", Body=b"x", Metadata={"by": "a"}, ContentType="text/csv"
        )
        etag = client.head_object(Bucket="bucket", Key="a//k")["ETag"]
        assert s3.log[0]["msg"] == f"metadata is kept in files in {folder}/s3-metadata"
        s3.stop()
        shutil.copytree(folder, tmp_path / "with", ignore=shutil.ignore_patterns("*.sock"))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    found = new_s3("with").start().client().get_object(Bucket="bucket", Key="a//k")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"], found["ETag"]) == (
        *(b"x", {"by": "a"}, "text/csv"),
        etag,
    )


def test_the_log_says_where_metadata_is_kept(s3: S3Program) -> None:
    assert [(line["level"], line["msg"]) for line in s3.log] == [
        ("INFO", "metadata is kept in extended attributes of the objects' files")
    ]
