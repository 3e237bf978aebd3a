"""A whole Moorage, as users run it, for tests: real processes, a free port, a data directory of its own."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from moorage.auth.credentials import AccessKey, read_root_key

ACCOUNT = "000000000000"
MODELHOST = "moorage/modelhost"
ISOLATION = os.environ.get("TEST_CONTAINER_ISOLATION", "none")
"""Of servers that say nothing of it: many tests exchange process ids and files with their models."""
ROLE = f"arn:aws:iam::{ACCOUNT}:role/test"


class MoorageServer:
    """`moorage serve` in a process of its own. `settings` become `MOORAGE_*` variables.

    None of our own AWS_* and MOORAGE_* variables reach it, but `environment` does.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        arguments: tuple[str, ...] = (),
        before: tuple[str, ...] = (),
        python: Path = Path(sys.executable),
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._before = before
        """A program, with arguments, that becomes the server: it is given the server's command line."""
        self._python = python
        self._settings = {"container_isolation": ISOLATION, **settings}
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.verify: str | None = None
        """The certificate that clients trust, when the server speaks TLS."""
        self._port = 0

    def start(self) -> "MoorageServer":
        """Start, or start again on the same port and data directory, and wait until it is ready."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOORAGE_"))
        }
        environment |= {
            f"MOORAGE_{key.upper()}": str(value) for key, value in self._settings.items()
        } | self._environment
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = (self.data_dir.parent / f"{self.data_dir.name}.server.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [
                    *self._before,
                    *(str(self._python), "-m", "moorage", "serve"),
                    *("--port", str(self._port), "--data-dir", str(self.data_dir), *self._arguments),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=self.data_dir,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.startswith("Moorage is ready at "):
            self._take().wait()
            raise AssertionError(f"{line!r}\n{self.log}")
        self.url = line.rpartition(" ")[2]
        self._port = int(self.url.rpartition(":")[2])
        return self

    def stop(self, *, timeout: float = 60.0) -> int:
        """SIGTERM; returns the exit status."""
        process = self._take()
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout)

    def kill(self) -> None:
        """`kill -9` of the parent process."""
        process = self._take()
        process.kill()
        process.wait()

    def ensure_stopped(self) -> None:
        if self._process is not None:
            self.stop()

    def _take(self) -> "subprocess.Popen[str]":
        assert self._process is not None
        process, self._process = self._process, None
        assert process.stdout is not None
        process.stdout.close()
        return process

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server's own processes have logged."""
        return (self.data_dir.parent / f"{self.data_dir.name}.server.log").read_text()

    @property
    def key(self) -> AccessKey:
        return read_root_key(self.data_dir / "credentials", account_id=ACCOUNT)

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client that tries once, unless `config` says otherwise."""
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, **config}
        return boto3.client(
            service,
            endpoint_url=self.url,
            verify=self.verify,
            region_name="us-east-1",
            aws_access_key_id=self.key.access_key_id,
            aws_secret_access_key=self.key.secret_access_key,
            config=Config(**options),
        )

    def upload(self, name: str, files: Mapping[str, str | bytes], *, bucket: str = "models") -> str:
        """Pack files into a model.tar.gz in S3; returns its URL."""
        s3 = self.client("s3")
        with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=f"{name}/model.tar.gz", Body=pack(files))
        return f"s3://{bucket}/{name}/model.tar.gz"

    def create(self, name: str, files: Mapping[str, str | bytes], **options: Any) -> None:
        """Model, configuration and endpoint of one name, without waiting. For the options see `configure`."""
        self.configure(name, files, **options)
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)

    def configure(
        self,
        name: str,
        files: Mapping[str, str | bytes],
        *,
        instances: int = 1,
        image: str = MODELHOST,
        environment: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        variant: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """A model and a configuration of one name. `config`, `variant` and `model` add members to the configuration,
        to its only variant, and to the model."""
        sagemaker = self.client("sagemaker")
        container: dict[str, Any] = {"Image": image, "Environment": dict(environment or {})}
        if files:
            container["ModelDataUrl"] = self.upload(name, files)
        sagemaker.create_model(
            ModelName=name,
            PrimaryContainer=container,
            **{"ExecutionRoleArn": ROLE, **(model or {})},
        )
        members = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": instances,
            "InstanceType": "ml.m5.large",
            **(variant or {}),
        }
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[members], **(config or {})
        )

    def deploy(self, name: str, files: Mapping[str, str | bytes], **options: Any) -> None:
        """`create`, then wait until the endpoint is in service."""
        self.create(name, files, **options)
        endpoint = self.wait_for(name, "InService", "Failed")
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    def wait_for(self, name: str, *statuses: str, timeout: float = 60.0) -> dict[str, Any]:
        """The endpoint's description once it has one of the statuses."""
        sagemaker = self.client("sagemaker", retries={"total_max_attempts": 5})
        description: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal description
            description = sagemaker.describe_endpoint(EndpointName=name)
            return description["EndpointStatus"] in statuses

        eventually(reached, timeout=timeout, what=lambda: f"{name}: {description.get('EndpointStatus')}")
        return description

    def processes(self) -> dict[int, str]:
        """Every living process of this server and its instances: pid and command line."""
        found = {}
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    environ = (directory / "environ").read_bytes()
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if str(self.data_dir).encode() in environ + command.encode() and command:
                    found[int(directory.name)] = command
        return {pid: command for pid, command in found.items() if "moorage" in command}

    def process_of(self, part: str) -> int:
        """The pid of the server's process whose command line contains `part`."""
        return next(pid for pid, command in self.processes().items() if part in command)


def pack(files: Mapping[str, str | bytes]) -> bytes:
    """A model.tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def eventually(
    condition: Callable[[], object], *, timeout: float = 30.0, what: Callable[[], str] | None = None
) -> None:
    """Wait for something outside this process that sends no event. The timeout is for what never comes."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what() if what is not None else "what was waited for did not come")
        time.sleep(0.02)
