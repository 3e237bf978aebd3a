"""An S3 of a test's own, that can be stopped and started again."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from moorage.storage.objects import Acting, Credentials, Objects, ObjectStore, Principal
from tests.servers import eventually


class AnyRole:
    """The authority of an S3 that takes any keys and refuses nothing."""

    key = ""
    is_role = False

    async def acting(self, principal: Principal) -> Acting:
        return self

    async def credentials(self) -> Credentials:
        return Credentials(access_key_id="a", secret_access_key="b")

    def authorize(self, action: str, resource: str, context: Mapping[str, str]) -> None:
        """Everything is allowed."""


class LocalS3:
    """`rclone serve s3` on a folder, without keys. Its buckets are the folders in it."""

    def __init__(self, folder: Path, *buckets: str) -> None:
        self._folder = folder
        for bucket in buckets:
            (folder / bucket).mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "LocalS3":
        program = Path(sys.executable).with_name("rclone")
        self._process = subprocess.Popen(
            [
                *(str(program) if program.exists() else shutil.which("rclone") or "rclone", "serve", "s3"),
                *(str(self._folder), "--config", "/dev/null", "--addr", f"127.0.0.1:{self._port}"),
                *("--vfs-cache-mode", "off", "--dir-cache-time", "1s", "--log-level", "CRITICAL"),
            ]
        )
        eventually(self._accepts)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def objects(self) -> Objects:
        return Objects(endpoint=self.url, region="us-east-1", authority=AnyRole())

    def store(self) -> ObjectStore:
        return self.objects().acting_as("000000000000", None, source_arn="arn:aws:sagemaker:::model/m")

    def read(self, url: str) -> bytes | None:
        path = self._folder / url.removeprefix("s3://")
        return path.read_bytes() if path.exists() else None

    def write(self, url: str, data: bytes) -> None:
        path = self._folder / url.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True
