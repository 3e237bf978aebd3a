"""`kill -9` of the embedded S3, of the gateways, or of everything, again and again under uploads through the one URL.

What was acknowledged is there byte for byte with its metadata and tags, every object is whole, and nothing else is
left behind.

TEST_S3_UPLOADS says how many uploads: 500 without it, shared by the two tests; TEST_S3_KILLS how many kills in each.
"""

import hashlib
import itertools
import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import MoorageServer, eventually

UPLOADS = int(os.environ.get("TEST_S3_UPLOADS", "500")) // 2
KILLS = int(os.environ.get("TEST_S3_KILLS", "0"))
WRITERS = 6
BUCKET = "kept"
MIB = 1024 * 1024
SIZES = (0, 1, 1_000, 4_096, 65_537, 300_000, MIB, 5 * MIB, 12 * MIB)
WEIGHTS = (6, 6, 20, 10, 10, 6, 3, 1, 2)
PARTS = TransferConfig(multipart_threshold=5 * MIB + 1, multipart_chunksize=5 * MIB, max_concurrency=2)
NOISE = random.Random(13).randbytes(13 * MIB)


@dataclass(frozen=True)
class Upload:
    """One attempt to write a key. No two have the same content."""

    number: int
    key: str
    size: int

    @property
    def body(self) -> bytes:
        return (b"%d " % self.number + NOISE[self.number :])[: self.size]

    @property
    def metadata(self) -> dict[str, str]:
        return {"number": str(self.number), "note": "x" * (self.number % 50)}

    @property
    def tags(self) -> dict[str, str]:
        return {"number": str(self.number)} if self.number % 3 else {}


class Uploads:
    """Attempts, by several threads. A key belongs to one thread, so that the order of its attempts is known."""

    def __init__(self, count: int, seed: int) -> None:
        random_numbers = random.Random(seed)
        self._queues = [self._plan(count // WRITERS, writer, random_numbers) for writer in range(WRITERS)]
        self._condition = threading.Condition()
        self.acknowledged = 0
        self.possible: dict[str, list[Upload]] = defaultdict(list)
        """By key: the last that was acknowledged, and what was tried since then."""
        self.certain: set[str] = set()
        """Keys of which at least one upload was acknowledged."""

    @staticmethod
    def _plan(count: int, writer: int, random_numbers: random.Random) -> list[Upload]:
        sizes = random_numbers.choices(SIZES, WEIGHTS, k=count)
        plan = []
        for index, size in enumerate(sizes):
            again = index % 4 == 3  # every fourth replaces the one before
            key = plan[-1].key if again else f"writer {writer}/{index % 3}/ü+{index}"
            plan.append(Upload(writer * 100_000 + index, key, size))
        return plan

    def run(self, server: MoorageServer, kill: Callable[[], None], *, times: int) -> None:
        """Upload all, and kill whenever another share of them was acknowledged, while the others go on."""
        threads = [threading.Thread(target=self._write, args=(server, queue)) for queue in self._queues]
        for thread in threads:
            thread.start()
        total = sum(map(len, self._queues))
        for share in range(1, times + 1):
            with self._condition:
                assert self._condition.wait_for(
                    lambda share=share: self.acknowledged >= total * share // (times + 2), timeout=120
                )
            kill()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()

    def _write(self, server: MoorageServer, queue: list[Upload]) -> None:
        client = server.client("s3", connect_timeout=5, read_timeout=30)
        for upload in queue:
            for attempt in itertools.count():
                assert attempt < 500, "the server does not come back"
                self.possible[upload.key].append(upload)
                try:
                    put(client, upload)
                except (ClientError, BotoCoreError, OSError):
                    wait_until_it_answers(client)
                    continue
                break
            with self._condition:
                self.possible[upload.key] = [upload]
                self.certain.add(upload.key)
                self.acknowledged += 1
                self._condition.notify()


def put(client: Any, upload: Upload) -> None:
    tagging = "&".join(f"{name}={value}" for name, value in upload.tags.items())
    members = {
        "Metadata": upload.metadata,
        "ContentType": "text/x",
        **({"Tagging": tagging} if tagging else {}),
    }
    if upload.size <= PARTS.multipart_threshold:
        client.put_object(Bucket=BUCKET, Key=upload.key, Body=upload.body, **members)
        return
    upload_id = client.create_multipart_upload(Bucket=BUCKET, Key=upload.key, **members)["UploadId"]
    parts = []
    for number, begin in enumerate(range(0, upload.size, PARTS.multipart_chunksize), start=1):
        part = {"Bucket": BUCKET, "Key": upload.key, "UploadId": upload_id, "PartNumber": number}
        reply = client.upload_part(**part, Body=upload.body[begin : begin + PARTS.multipart_chunksize])
        parts.append({"ETag": reply["ETag"], "PartNumber": number})
    client.complete_multipart_upload(
        Bucket=BUCKET, Key=upload.key, UploadId=upload_id, MultipartUpload={"Parts": parts}
    )


def wait_until_it_answers(client: Any) -> None:
    def answers() -> bool:
        try:
            client.head_bucket(Bucket=BUCKET)
        except (ClientError, BotoCoreError):
            return False
        return True

    eventually(answers, timeout=60)


def check(server: MoorageServer, uploads: Uploads) -> None:
    client = server.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    listed = {entry["Key"] for page in pages for entry in page.get("Contents", ())}
    assert uploads.certain <= listed
    assert listed <= set(uploads.possible)
    for key in listed:
        reply = client.get_object(Bucket=BUCKET, Key=key)
        number = int(reply["Metadata"]["number"])
        (upload,) = [each for each in set(uploads.possible[key]) if each.number == number]
        assert hashlib.sha256(reply["Body"].read()).digest() == hashlib.sha256(upload.body).digest(), key
        assert (reply["Metadata"], reply["ContentType"]) == (upload.metadata, "text/x")
        tags = client.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == upload.tags


def check_nothing_is_left(server: MoorageServer) -> None:
    """Uploads in parts that were begun are the clients' to end; then there is one file for each object."""
    client = server.client("s3")
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    listed = {entry["Key"] for page in pages for entry in page.get("Contents", ())}
    bucket = server.data_dir / "s3" / BUCKET
    assert {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()} == listed
    parents = {str(parent) for key in listed for parent in Path(key).parents} - {"."}
    directories = {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_dir()}
    assert directories - {".sgwtmp", ".sgwtmp/multipart"} == parents
    for name in ("s3-versions", "s3-metadata"):
        assert [path for path in (server.data_dir / name).rglob("*") if path.is_file()] == []
    assert {path.name for path in (server.data_dir / "s3").iterdir()} == {BUCKET, ".moorage-s3"}


PARTS_IN_TURN = ("moorage-s3 ", "gateway_process", "moorage-s3 ")
"""What is in their command lines."""


@pytest.mark.parametrize("everything", [False, True], ids=["parts in turn", "everything"])
def test_acknowledged_uploads_outlive_kills(
    new_server: Callable[..., MoorageServer], everything: bool
) -> None:
    server = new_server()
    server.client("s3").create_bucket(Bucket=BUCKET)
    parts = itertools.cycle(PARTS_IN_TURN)

    def kill() -> None:
        part = "" if everything else next(parts)
        for pid in [pid for pid, command in server.processes().items() if part in command]:
            with suppress(ProcessLookupError):  # some end with those that were killed before them
                os.kill(pid, signal.SIGKILL)
        if everything:
            server.kill()
            server.start()

    uploads = Uploads(UPLOADS, seed=everything)
    uploads.run(server, kill, times=KILLS or (1 if everything else len(PARTS_IN_TURN)))
    server.kill()
    server.start()
    check(server, uploads)
    check_nothing_is_left(server)
    assert server.stop() == 0
