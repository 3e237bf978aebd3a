"""PostgreSQL hangs, and goes away, under load: endpoints lose nothing, and everything else says so in time."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.postgres import PostgresServer
from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
ANSWERED_WITHIN = 5.0
LEASE_SECONDS = 2.0
OUTAGE_SECONDS = 2 * LEASE_SECONDS

ECHO = {
    "code/inference.py": "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}
SLOW = {
    "code/inference.py": "import time\ndef model_fn(d):\n    return 1\n"
    "def transform_fn(m, b, c, a):\n    time.sleep(0.2)\n    return b, 'text/plain'\n"
}
ASYNC = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://models/output"}}}


class Load:
    """Invocations one after another, in a thread of its own."""

    def __init__(self, server: MoorageServer) -> None:
        self._runtime = server.client("sagemaker-runtime")
        self._stopped = threading.Event()
        self.answers = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            body = str(self.answers).encode()
            try:
                reply = self._runtime.invoke_endpoint(
                    EndpointName="echo", Body=body, ContentType="text/plain"
                )
                if reply["Body"].read() != body:
                    self.failures.append("a wrong answer")
            except Exception as error:
                self.failures.append(repr(error))
            self.answers += 1


@contextmanager
def under_load(server: MoorageServer) -> Iterator[Load]:
    load = Load(server)
    try:
        yield load
    finally:
        load.stop()


def health(server: MoorageServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/_moorage/health", timeout=10) as reply:
        assert reply.status == 200
        document: dict[str, Any] = json.load(reply)
        return document


def is_unavailable(call: Callable[[], object]) -> bool:
    """Whether it is refused as SDKs expect it, and in time."""
    began = time.monotonic()
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ServiceUnavailable"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert time.monotonic() - began < ANSWERED_WITHIN
        return True
    return False


def invoke_async(server: MoorageServer) -> str:
    reply = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="slow", InputLocation="s3://models/input", ContentType="text/plain"
    )
    location: str = reply["OutputLocation"]
    return location


def has(server: MoorageServer, location: str) -> bool:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    try:
        return bool(server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"input")
    except ClientError:
        return False


@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_nothing_is_lost_while_the_database_does_not_answer(
    breakable_postgres_server: PostgresServer, breakable_postgres_url: str, new_server: NewServer, how: str
) -> None:
    server = new_server(
        arguments=("--database-url", breakable_postgres_url),
        database_timeout_seconds=0.5,
        lease_seconds=LEASE_SECONDS,
    )
    server.deploy("echo", ECHO)
    server.deploy("slow", SLOW, config=ASYNC)
    server.client("s3").put_object(Bucket="models", Key="input", Body=b"input")
    sagemaker, iam = server.client("sagemaker"), server.client("iam")
    controller = server.process_of("controller_process")
    before = health(server)
    assert before["database"] == {"available": True}
    assert before["controller"] == {"available": True, "epoch": 1}
    accepted = [invoke_async(server) for _ in range(20)]
    with under_load(server) as load:
        if how == "hangs":
            breakable_postgres_server.freeze()
        else:
            breakable_postgres_server.stop()
        try:
            began = time.monotonic()
            assert is_unavailable(lambda: sagemaker.describe_endpoint(EndpointName="echo"))
            assert is_unavailable(lambda: iam.create_user(UserName="somebody"))
            assert is_unavailable(lambda: invoke_async(server))
            eventually(lambda: not health(server)["database"]["available"])
            assert "since" in health(server)["database"]
            answers = load.answers
            # Longer than the lease: its holder could not renew it, and nobody took it.
            eventually(lambda: time.monotonic() - began > OUTAGE_SECONDS)
            assert load.answers > answers
        finally:
            if how == "hangs":
                breakable_postgres_server.thaw()
            else:
                breakable_postgres_server.start()
        eventually(lambda: not is_unavailable(lambda: iam.create_user(UserName="somebody")))
        accepted.append(invoke_async(server))
    assert load.failures == []
    assert sagemaker.describe_endpoint(EndpointName="echo")["EndpointStatus"] == "InService"
    eventually(lambda: all(has(server, location) for location in accepted), timeout=60.0)
    assert health(server)["database"] == {"available": True}
    assert health(server)["controller"]["epoch"] == 1
    assert server.process_of("controller_process") == controller
    lines = [line for line in server.log.splitlines() if "the database" in line]
    assert len(lines) == 2, server.log
    assert "the control plane is unavailable until it is back" in lines[0]
    assert "answers again after" in lines[1]
    assert "Traceback" not in server.log
