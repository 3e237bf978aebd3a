"""Two servers on one database: one serves, the other says why not, or takes over when the first is dead."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.test_failing_starts import refused
from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
LEASE_SECONDS = 2.0

MODEL = {
    "code/inference.py": "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}


def invoke(server: MoorageServer, name: str) -> bytes:
    reply = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=b"hello", ContentType="text/plain"
    )
    body: bytes = reply["Body"].read()
    return body


def status(server: MoorageServer, name: str) -> str:
    sagemaker = server.client("sagemaker", retries={"total_max_attempts": 5})
    text: str = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    return text


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that servers with directories of their own share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_a_second_server_ends_and_the_first_notices_nothing(
    shared_url: str, new_server: NewServer, tmp_path: Path
) -> None:
    first = new_server("first", arguments=("--database-url", shared_url))
    first.deploy("kept", MODEL)
    controller = first.process_of("controller_process")
    sentence = refused(tmp_path / "second", "--database-url", shared_url)
    assert re.search(
        rf"in use by another Moorage: the controller on host \S+ with pid {controller}, ", sentence
    )
    assert re.search(r"which has led it since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\. Stop that one", sentence)
    assert status(first, "kept") == "InService"
    assert invoke(first, "kept") == b"hello"
    assert first.process_of("controller_process") == controller


def test_a_second_server_takes_over_from_one_that_was_killed(
    postgres_url: str, new_server: NewServer
) -> None:
    """On another machine; both here, so that the first can be killed for good."""
    options = {"arguments": ("--database-url", postgres_url), "lease_seconds": LEASE_SECONDS}
    first = new_server("first", **options)
    first.kill()
    eventually(lambda: not first.processes())
    second = new_server("second", **options)
    assert second.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_a_stopped_server_and_a_killed_controller_leave_nothing_to_wait_for(
    postgres_url: str, new_server: NewServer
) -> None:
    options = {"arguments": ("--database-url", postgres_url), "lease_seconds": 600.0}
    first = new_server("first", **options)
    os.kill(first.process_of("controller_process"), signal.SIGKILL)
    retrying = first.client("sagemaker", retries={"total_max_attempts": 8, "mode": "standard"})
    assert retrying.list_endpoints()["Endpoints"] == []
    first.kill()
    first.start()  # in its own directory
    assert first.stop() == 0
    new_server("second", **options)


def test_a_controller_that_was_paused_for_too_long_stops_acting(
    postgres_url: str, new_server: NewServer
) -> None:
    options = {"arguments": ("--database-url", postgres_url), "lease_seconds": LEASE_SECONDS}
    first = new_server("first", **options)
    first.deploy("kept", MODEL)
    paused = first.process_of("controller_process")
    os.kill(paused, signal.SIGSTOP)
    second = new_server("second", **options)
    os.kill(paused, signal.SIGCONT)
    leader = second.process_of("controller_process")
    eventually(lambda: f"with pid {leader}" in first.log, what=lambda: first.log)
    assert "this controller stops acting" in first.log
    eventually(lambda: "waiting for the database, which is led by" in first.log, what=lambda: first.log)
    assert "Traceback" not in first.log
    assert invoke(first, "kept") == b"hello", "the data plane serves on"
    assert second.stop() == 0
    eventually(lambda: status(first, "kept") == "InService")


def test_a_second_server_with_the_same_data_directory(new_server: NewServer) -> None:
    first = new_server()
    assert f"in use by another Moorage (pid {first.pid})" in refused(first.data_dir)
