"""Uploads whose bodies do not come keep nobody else waiting."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from moorage.gateway.s3.signing import S3Signer
from tests.s3.program import A, S3Program
from tests.servers import eventually

UPLOADS = 400
LENGTH = 1_000_000


def beginning(s3: S3Program, key: str) -> bytes:
    """Of an upload: its head, and a part of its body."""
    framing = b"content-length: %d\r\n" % LENGTH
    target = f"/bucket/{key}".encode(), b""
    return S3Signer(s3.accounts).head(A, b"PUT", target, {b"host": b"localhost"}, framing=framing) + bytes(
        20_000
    )


@pytest.fixture
def s3(tmp_path: Path) -> S3Program:
    return S3Program(tmp_path / "data").start()


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
    s3.ensure_stopped()
