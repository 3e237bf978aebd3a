"""The embedded S3 alone, in a process of its own, and clients that reach it by its Unix socket."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import urllib3
from botocore.awsrequest import AWSHTTPConnection
from botocore.config import Config

from moorage.storage.s3_accounts import KEY_VARIABLE, REGION, S3Accounts
from tests.servers import eventually

PROGRAM = Path(sys.executable).with_name("moorage-s3")
A, B = "000000000000", "111111111111"
SECRET_KEY = b"the secret key of some data directory"


class S3Program:
    """`moorage-s3` on the directories `s3`, `s3-versions` and `s3-metadata` in a data directory."""

    def __init__(self, data_dir: Path, *, before: Sequence[str] = ()) -> None:
        self.data_dir = data_dir
        self.root = data_dir / "s3"
        self.socket = data_dir / "s3.sock"
        self.accounts = S3Accounts(SECRET_KEY)
        self._before = tuple(before)
        """A program, with arguments, that becomes this one: it is given its command line."""
        self._process: subprocess.Popen[bytes] | None = None
        self._managers: list[_UnixManager] = []

    @property
    def command(self) -> tuple[str, ...]:
        return (
            *self._before,
            *(str(PROGRAM), "--socket", str(self.socket), "--root", str(self.root), "--account", A),
            *(
                "--versions",
                str(self.data_dir / "s3-versions"),
                "--sidecar",
                str(self.data_dir / "s3-metadata"),
            ),
        )

    @property
    def environment(self) -> dict[str, str]:
        return {KEY_VARIABLE: self.accounts.master_hex, "PATH": os.defpath}

    def start(self) -> "S3Program":
        """Start, or start again, and wait until it accepts connections."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        eventually(self._accepts)
        return self

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def ensure_stopped(self) -> None:
        """And close the connections of all clients."""
        if self._process is not None:
            self.kill()
        for manager in self._managers:
            manager.clear()

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.data_dir / "log").read_text().splitlines()]

    def client(self, account: str = A, **config: Any) -> Any:
        """A boto3 client that tries once, unless `config` says otherwise."""
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}}
        client = boto3.client(
            "s3",
            endpoint_url="http://localhost",
            region_name=REGION,
            aws_access_key_id=account,
            aws_secret_access_key=self.accounts.secret_of(account),
            config=Config(**{**options, **config}),
        )
        manager = _UnixManager(self.socket)
        self._managers.append(manager)
        client._endpoint.http_session._manager = manager
        return client

    def _end(self, number: int) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(30)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.data_dir / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0


class _UnixManager(urllib3.PoolManager):
    """Connects to a Unix socket, whatever the URL."""

    def __init__(self, path: Path) -> None:
        super().__init__()

        class Connection(AWSHTTPConnection):
            def _new_conn(self) -> socket.socket:
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(str(path))
                except OSError:
                    connection.close()
                    raise
                return connection

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        self.pool_classes_by_scheme = {"http": Pool}
