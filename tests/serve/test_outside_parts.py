"""A server on parts that are not its own: another S3, PostgreSQL."""

import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import pytest

from tests.s3.by_tcp import KEY, OtherS3
from tests.servers import MODELHOST, ROLE, MoorageServer, pack

NewServer = Callable[..., MoorageServer]

MODEL = {
    "code/inference.py": "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}


@pytest.fixture
def other_s3(tmp_path: Path) -> Iterator[str]:
    """An S3 that Moorage does not run, with credentials of its own."""
    s3 = OtherS3(tmp_path / "objects").start()
    yield s3.url
    s3.stop()


def invoke(server: MoorageServer, name: str) -> Any:
    reply = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=b"hello", ContentType="text/plain"
    )
    return reply["Body"].read()


def test_models_from_another_s3(new_server: NewServer, other_s3: str) -> None:
    server = new_server(arguments=("--s3-endpoint", other_s3), environment=KEY)
    assert not [command for command in server.processes().values() if "moorage-s3" in command]
    s3 = boto3.client(
        "s3",
        endpoint_url=other_s3,
        region_name="us-east-1",
        aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="theirs")
    s3.put_object(Bucket="theirs", Key="model.tar.gz", Body=pack(MODEL))
    sagemaker = server.client("sagemaker")
    container = {"Image": MODELHOST, "ModelDataUrl": "s3://theirs/model.tar.gz"}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName="m", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="m", EndpointConfigName="m")
    server.wait_for("m", "InService")
    assert invoke(server, "m") == b"hello"
    with pytest.raises(botocore.exceptions.ClientError, match="Speak to that S3 directly"):
        server.client("s3").list_buckets()


def test_state_in_postgresql(postgres_url: str, new_server: NewServer) -> None:
    server = new_server(arguments=("--database-url", postgres_url))
    server.deploy("kept", MODEL)
    assert invoke(server, "kept") == b"hello"
    assert server.stop() == 0
    assert not (server.data_dir / "moorage.db").exists()
    server.start()
    server.wait_for("kept", "InService")
    assert invoke(server, "kept") == b"hello"


def test_two_gateways_share_the_port(new_server: NewServer) -> None:
    server = new_server(arguments=("--workers", "2"))
    server.deploy("shared", MODEL)
    gateways = [command for command in server.processes().values() if "gateway_process" in command]
    assert len(gateways) == 2
    assert {invoke(server, "shared") for _ in range(20)} == {b"hello"}


def test_with_a_gateway_stopped_the_other_takes_its_connections(new_server: NewServer) -> None:
    """The kernel goes on sharing connections out to the one that does nothing."""
    server = new_server(arguments=("--workers", "2"))
    stopped = next(pid for pid, command in server.processes().items() if "gateway_process" in command)
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(20):  # all to the other by chance: one in a million
            with urllib.request.urlopen(f"{server.url}/_moorage/health", timeout=30) as reply:
                assert reply.status == 200
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_port_that_another_server_has_is_not_shared_with_it(new_server: NewServer, tmp_path: Path) -> None:
    first = new_server(arguments=("--workers", "2"))
    port = urlsplit(first.url).port
    with pytest.raises(AssertionError, match=f"Cannot listen on 127.0.0.1:{port}"):
        MoorageServer(tmp_path / "second", arguments=("--workers", "2", "--port", str(port))).start()
