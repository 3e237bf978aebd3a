"""`moorage serve` as users run it, for measuring: its endpoints, its processes, its key."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from harness import command_line, descendants, process
from moorage.auth.credentials import AccessKey, read_root_key

ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/benchmark"
CONTROLLER, GATEWAY = "controller_process", "gateway_process"
"""What is in the command lines of its processes."""


class MoorageServer:
    def __init__(self, url: str, data_dir: Path, pid: int) -> None:
        self.url = url
        self.data_dir = data_dir
        self.pid = pid
        self.key: AccessKey = read_root_key(data_dir / "credentials", account_id=ACCOUNT)

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key.access_key_id,
            aws_secret_access_key=self.key.secret_access_key,
        )

    def deploy(self, name: str, container: Mapping[str, Any], **config: Any) -> None:
        """An endpoint with one instance, once it is in service."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "v",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        while (status := sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) != "InService":
            assert status == "Creating", status
            time.sleep(0.05)

    def processes(self, name: str) -> list[int]:
        """Those whose command line has the name."""
        return [pid for pid in descendants(self.pid) if name in command_line(pid)]


@contextmanager
def moorage_serve(
    folder: Path,
    *options: object,
    image: Path | None = None,
    core: int | None = None,
    python: Path = Path(sys.executable),
) -> Iterator[MoorageServer]:
    """A server with its data in `folder`. `image` is a program that containers with the image `benchmark` run; they
    see the files that the benchmark sees."""
    data_dir = folder / "data"
    settings = folder / "moorage.toml"
    images = f"container_isolation = 'none'\n[images]\nbenchmark = '{sys.executable} {image}'\n"
    settings.write_text(images if image else "")
    command = [python, "-m", "moorage", "serve", "--port", 0, "--data-dir", data_dir]
    command += ["--config", settings, *options]
    # The embedded S3 is beside the interpreter of the benchmark, whichever the server has.
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with process(
        *command, environment=environment, core=core, folder=folder, stop_seconds=90.0, piped=True
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise SystemExit("Moorage did not start; its messages are above.")
        yield MoorageServer(line.split()[-1], data_dir, child.pid)
