"""Streams of real containers that are killed, hang, or lose their client, through a whole server."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.servers import MoorageServer, eventually

# A client that is told of a break, or leaves, drops its socket without closing it; that is its own way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MODEL = {
    "code/inference.py": """
import asyncio, os, pathlib, time

def model_fn(model_dir):
    return pathlib.Path(os.environ["NOTES"])

def transform_fn(notes, body, content_type, accept):
    return words(notes, float(body)), "text/plain"

def words(notes, pause):
    try:
        yield f"{os.getppid()}"
        while True:
            time.sleep(pause)
            yield "word"
    finally:
        (notes / "finally").write_text(str(time.time()))
"""
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageServer]:
    folder = tmp_path_factory.mktemp("streams")
    running = MoorageServer(folder / "data", stream_timeout_seconds=3).start()
    running.deploy("words", MODEL, environment={"NOTES": str(folder)})
    yield running
    assert running.stop() == 0
    assert not running.processes()


def stream(server: MoorageServer, pause: float) -> tuple[Any, Iterator[bytes]]:
    runtime = server.client("sagemaker-runtime")
    reply = runtime.invoke_endpoint_with_response_stream(EndpointName="words", Body=str(pause))
    return reply, (event["PayloadPart"]["Bytes"] for event in reply["Body"])


def first_part(server: MoorageServer) -> bytes | None:
    """None while there is no instance."""
    try:
        reply, parts = stream(server, 0.05)
        first = next(parts)
    except ClientError:
        return None
    reply["Body"].close()
    return first


def test_a_container_killed_in_the_middle(server: MoorageServer) -> None:
    _, parts = stream(server, 0.05)
    pid = int(next(parts))
    assert next(parts) == b"word"
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EventStreamError, match=r"ModelStreamError.*streaming the response from primary"):
        list(parts)
    eventually(lambda: first_part(server) not in (None, b"%d" % pid))


def test_a_container_that_hangs_in_the_middle(server: MoorageServer) -> None:
    started = time.monotonic()
    _, parts = stream(server, 600)
    assert next(parts)
    with pytest.raises(
        EventStreamError, match="did not complete sending the inference response in the allotted time"
    ):
        list(parts)
    assert 2.5 < time.monotonic() - started < 10


@pytest.mark.parametrize("pause", [0.02, 600.0])
def test_the_generator_learns_that_its_client_left(server: MoorageServer, pause: float) -> None:
    """Also when it is between two parts, asleep."""
    note = server.data_dir.parent / "finally"
    note.unlink(missing_ok=True)
    reply, parts = stream(server, pause)
    assert next(parts)
    left = time.time()
    reply["Body"].close()
    eventually(lambda: note.exists() and note.read_text())
    assert float(note.read_text()) - left < 0.1, "the promise is 100 ms"
