"""Stopping: what is in flight is finished, in order, and nothing is left; a second signal hurries."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]

SLOW = {
    "code/inference.py": """
import pathlib, time

def model_fn(model_dir):
    return pathlib.Path(model_dir)

def transform_fn(model, body, content_type, accept):
    (model / "inside").touch()
    time.sleep(float(body))
    return "done", "text/plain"
"""
}


class Invocation(threading.Thread):
    """An invocation that is inside its container once this is constructed."""

    def __init__(self, server: MoorageServer, name: str, seconds: float) -> None:
        super().__init__()
        self._runtime = server.client("sagemaker-runtime")
        self._name = name
        self._seconds = seconds
        self.result: Any = None
        self.start()
        instances = server.data_dir / "instances"
        eventually(lambda: list(instances.glob("*/model/inside")))

    def run(self) -> None:
        try:
            reply = self._runtime.invoke_endpoint(
                EndpointName=self._name, Body=str(self._seconds), ContentType="text/plain"
            )
            self.result = reply["Body"].read()
        except Exception as error:
            self.result = error


def test_sigterm_finishes_what_is_in_flight(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("slow", SLOW)
    invocation = Invocation(server, "slow", 1.5)
    assert server.stop() == 0
    invocation.join()
    assert invocation.result == b"done"
    assert not server.processes()


def test_no_gateway_keeps_the_port_of_another_open(new_server: NewServer) -> None:
    """Whom the kernel lets in then would wait for an answer until everything has ended."""
    server = new_server(workers=2)
    server.deploy("slow", SLOW)
    invocation = Invocation(server, "slow", 10)
    os.kill(server.pid, signal.SIGTERM)
    eventually(lambda: is_closed(int(server.url.rpartition(":")[2])))
    assert invocation.is_alive()
    invocation.join()
    assert invocation.result == b"done"


def is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_second_signal_hurries(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("slow", SLOW)
    invocation = Invocation(server, "slow", 50)
    started = time.monotonic()
    pid = server.pid
    os.kill(pid, signal.SIGINT)
    eventually(lambda: "finished first" in server.log)
    assert server.stop(timeout=20) == 0  # the second one
    assert time.monotonic() - started < 20
    invocation.join()
    assert isinstance(invocation.result, Exception)
    assert not server.processes()
