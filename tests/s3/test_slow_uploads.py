"""Uploads whose bodies do not come: they keep nobody else waiting, and change nothing."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from moorage.gateway.s3.signing import S3Signer
from tests.s3.program import A, S3Program
from tests.servers import eventually

UPLOADS = 400
LENGTH = 1_000_000


def beginning(s3: S3Program, key: str, query: str = "") -> bytes:
    """Of an upload: its head, and a part of its body."""
    framing = b"content-length: %d\r\n" % LENGTH
    target = f"/bucket/{key}".encode(), query.encode()
    return S3Signer(s3.accounts).head(A, b"PUT", target, {b"host": b"localhost"}, framing=framing) + bytes(
        20_000
    )


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Program]:
    program = S3Program(tmp_path / "data").start()
    yield program
    program.ensure_stopped()


def test_they_keep_nobody_else_waiting(s3: S3Program) -> None:
    client = s3.client(read_timeout=20)
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="k", Body=b"content")
    with ExitStack() as uploads:
        for number in range(UPLOADS):
            upload = uploads.enter_context(socket.socket(socket.AF_UNIX))
            upload.connect(str(s3.socket))
            upload.sendall(beginning(s3, str(number)))
        being_written = s3.root / "bucket" / ".sgwtmp"
        eventually(lambda: len(list(being_written.iterdir())) >= 256)
        assert client.get_object(Bucket="bucket", Key="k")["Body"].read() == b"content"
        client.put_object(Bucket="bucket", Key="other", Body=b"content")


def test_one_that_is_cut_off_changes_nothing(s3: S3Program) -> None:
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    where = {"Bucket": "bucket", "Key": "k"}
    client.put_object(**where, Body=b"old")
    upload = client.create_multipart_upload(**where)["UploadId"]
    temporary = s3.root / "bucket" / ".sgwtmp"

    def being_written() -> list[Path]:
        return [each for each in temporary.rglob("*") if re.fullmatch(r"[0-9a-f]{64}\.[0-9]+", each.name)]

    for query in ("", f"partNumber=1&uploadId={upload}"):
        with socket.socket(socket.AF_UNIX) as cut_off:
            cut_off.connect(str(s3.socket))
            cut_off.sendall(beginning(s3, "k", query))
            eventually(being_written)
        eventually(lambda: not being_written())
    assert client.get_object(**where)["Body"].read() == b"old"
    assert "Parts" not in client.list_parts(**where, UploadId=upload)
