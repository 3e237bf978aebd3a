"""A gigabyte in and a gigabyte out, byte for byte, through processes that stay small."""

import hashlib
import io
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]

GIGABYTE = 10**9
MIB = 1024 * 1024
MOST_GROWTH = 64 * MIB
DISK_NEEDED = 5 * GIGABYTE
CONTAINER = Path(__file__).with_name("spooling_container.py")
PARTS = {
    "controller": "controller_process",
    "gateway": "gateway_process",
    "embedded S3": "moorage-s3",
    "parent": "runtime.serve",
}
"""What they are called, and what their command lines contain."""

pytestmark = pytest.mark.timeout(600)


class Noise(io.RawIOBase):
    """Bytes that no compression and no cache makes easier, made as they are read; `sha256` is of those read."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._block = random.Random(size).randbytes(MIB)
        self._blocks = self._endless()
        self._rest = b""
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        pieces = []
        while wanted:
            if not self._rest:
                self._rest = next(self._blocks)
            pieces.append(self._rest[:wanted])
            self._rest = self._rest[wanted:]
            wanted -= len(pieces[-1])
        data = b"".join(pieces)
        self._left -= len(data)
        self.sha256.update(data)
        return data

    def _endless(self) -> Iterator[bytes]:
        """The same block, cut at another place each time."""
        chance = random.Random(1)
        while True:
            cut = chance.randrange(MIB)
            yield self._block[cut:] + self._block[:cut]


class Growth:
    """How much resident memory each part of a server gained at most, in bytes, while `watched`."""

    def __init__(self, server: MoorageServer) -> None:
        self._pids = {name: server.process_of(part) for name, part in PARTS.items()}
        self._before = {name: _resident(pid) for name, pid in self._pids.items()}
        self._most = dict(self._before)
        self._done = threading.Event()

    def __getitem__(self, name: str) -> int:
        return self._most[name] - self._before[name]

    def __str__(self) -> str:
        return ", ".join(f"{name} +{self[name] / MIB:.0f} MiB" for name in PARTS)

    @contextmanager
    def watched(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._done.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for name, pid in self._pids.items():
                self._most[name] = max(self._most[name], _resident(pid))


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def enough_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < DISK_NEEDED and os.environ.get("CI") != "true":
        pytest.skip(f"needs {DISK_NEEDED / GIGABYTE:.0f} GB of disk, and {free / GIGABYTE:.1f} GB are free")


@pytest.fixture
def server(new_server: NewServer, tmp_path: Path, enough_disk: None) -> Iterator[MoorageServer]:
    """One with the endpoint and the bucket `large`. Its objects do not outlive the test."""
    settings = tmp_path / "moorage.toml"
    settings.write_text(f'[images]\nspooling = ["{{python}}", "{CONTAINER}"]\n')
    made = new_server(arguments=("--config", str(settings)))
    made.client("s3").create_bucket(Bucket="large")
    output = {"S3OutputPath": "s3://large/out", "S3FailurePath": "s3://large/failed"}
    made.deploy("large", {}, image="spooling", config={"AsyncInferenceConfig": {"OutputConfig": output}})
    yield made
    made.ensure_stopped()
    shutil.rmtree(made.data_dir)


def test_a_gigabyte_goes_in_and_out(server: MoorageServer) -> None:
    s3, runtime = server.client("s3"), server.client("sagemaker-runtime")
    growth, noise, started = Growth(server), Noise(GIGABYTE), time.monotonic()
    with growth.watched():
        s3.upload_fileobj(noise, "large", "in")
        uploaded = time.monotonic()
        reply = runtime.invoke_endpoint_async(EndpointName="large", InputLocation="s3://large/in")
        output, failure = (_key(reply[place]) for place in ("OutputLocation", "FailureLocation"))
        eventually(lambda: _size(s3, output) or _size(s3, failure), timeout=400)
        invoked = time.monotonic()
        assert _size(s3, output) == GIGABYTE
        digest = hashlib.sha256()
        for piece in s3.get_object(Bucket="large", Key=output)["Body"].iter_chunks(MIB):
            digest.update(piece)
    downloaded = time.monotonic()
    print(
        f"1 GB: uploaded in {uploaded - started:.1f} s, invoked in {invoked - uploaded:.1f} s, "
        f"downloaded in {downloaded - invoked:.1f} s; {growth}"
    )
    assert digest.hexdigest() == noise.sha256.hexdigest()
    assert growth["controller"] <= MOST_GROWTH, str(growth)
    assert growth["gateway"] <= MOST_GROWTH, str(growth)


def _key(location: str) -> str:
    return location.removeprefix("s3://large/")


def _size(s3: Any, key: str) -> int | None:
    try:
        size: int = s3.head_object(Bucket="large", Key=key)["ContentLength"]
    except s3.exceptions.ClientError:
        return None
    return size
