"""`kill -9` of any process, or of all: the state is right afterwards, and nobody is left behind."""

import os
import signal
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]

ECHO = {
    "code/inference.py": """
import os

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    return f"{os.getppid()}:{body.decode() if isinstance(body, bytes) else body}", "text/plain"
"""
}

SLOW_TO_LOAD = {
    "code/inference.py": """
import os, pathlib, time

def model_fn(model_dir):
    gate = pathlib.Path(os.environ["GATE"])
    while not gate.exists():
        time.sleep(0.02)

def transform_fn(model, body, content_type, accept):
    return body, "text/plain"
"""
}


def invoke(server: MoorageServer, name: str, **config: Any) -> str:
    """One invocation that is tried again as an ordinary client does."""
    runtime = server.client(
        "sagemaker-runtime", retries={"mode": "standard", "total_max_attempts": 8}, **config
    )
    reply = runtime.invoke_endpoint(EndpointName=name, Body=b"hello", ContentType="text/plain")
    text: str = reply["Body"].read().decode()
    return text


def answers(server: MoorageServer, name: str) -> bool:
    try:
        return invoke(server, name).endswith(":hello")
    except Exception:
        return False


def test_killed_gateway_comes_back(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO)
    pid = server.process_of("gateway_process")
    os.kill(pid, signal.SIGKILL)
    assert invoke(server, "echo").endswith(":hello")
    assert server.process_of("gateway_process") != pid
    assert server.wait_for("echo", "InService")


def test_endpoints_answer_while_the_controller_is_dead(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO)
    instance = invoke(server, "echo").partition(":")[0]
    pid = server.process_of("controller_process")
    os.kill(pid, signal.SIGSTOP)  # dead to everyone, and not restarted before we say so
    assert invoke(server, "echo") == f"{instance}:hello"
    os.kill(pid, signal.SIGKILL)
    assert invoke(server, "echo") == f"{instance}:hello"
    endpoint = server.wait_for("echo", "InService")
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert invoke(server, "echo") == f"{instance}:hello", "the instance outlives the controller"


def test_killed_instance_is_replaced(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO)
    first = int(invoke(server, "echo").partition(":")[0])
    os.kill(first, signal.SIGKILL)
    eventually(lambda: answers(server, "echo"))
    assert int(invoke(server, "echo").partition(":")[0]) != first


def test_killed_s3_comes_back(new_server: NewServer) -> None:
    server = new_server()
    server.client("s3").create_bucket(Bucket="kept")
    server.client("s3").put_object(Bucket="kept", Key="a", Body=b"a")
    os.kill(server.process_of("moorage-s3"), signal.SIGKILL)
    s3 = server.client("s3", retries={"mode": "standard", "total_max_attempts": 8})
    assert s3.get_object(Bucket="kept", Key="a")["Body"].read() == b"a"


def test_killed_parent_takes_everything_with_it(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO, instances=2)
    server.kill()
    eventually(lambda: not server.processes(), what=lambda: f"left: {server.processes()}")
    server.start()
    server.wait_for("echo", "InService")
    assert answers(server, "echo")


def test_everything_killed_at_once(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO, instances=2, environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    before = server.processes()
    for pid in before:
        with suppress(ProcessLookupError):  # some end with those that were killed before them
            os.kill(pid, signal.SIGKILL)
    server.kill()
    server.start()
    endpoint = server.wait_for("echo", "InService")
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert answers(server, "echo")
    assert not set(before) & set(server.processes())
    assert server.stop() == 0
    eventually(lambda: not server.processes(), what=lambda: f"left: {server.processes()}")


@pytest.mark.parametrize("victim", ["controller_process", "moorage.runtime.serve"])
def test_creation_goes_on_after_a_kill(new_server: NewServer, victim: str, tmp_path_factory: Any) -> None:
    gate = tmp_path_factory.mktemp("gate") / "open"
    server = new_server()
    server.create("slow", SLOW_TO_LOAD, environment={"GATE": str(gate)})
    eventually(lambda: any("modelhost" in command for command in server.processes().values()))
    if victim == "controller_process":
        os.kill(server.process_of(victim), signal.SIGKILL)
    else:
        server.kill()
        server.start()
    assert server.wait_for("slow", "Creating", "InService")["EndpointStatus"] == "Creating"
    gate.touch()
    assert server.wait_for("slow", "InService", "Failed")["EndpointStatus"] == "InService"
    assert invoke(server, "slow") == "hello"


def test_deletion_goes_on_after_a_kill(new_server: NewServer) -> None:
    server = new_server()
    server.deploy("echo", ECHO)
    server.client("sagemaker").delete_endpoint(EndpointName="echo")
    os.kill(server.process_of("controller_process"), signal.SIGKILL)
    sagemaker = server.client("sagemaker", retries={"mode": "standard", "total_max_attempts": 8})
    eventually(lambda: not sagemaker.list_endpoints()["Endpoints"])
    eventually(lambda: not any("modelhost" in command for command in server.processes().values()))


def test_one_server_for_a_data_directory(new_server: NewServer) -> None:
    server = new_server()
    second = MoorageServer(server.data_dir)
    with pytest.raises(AssertionError, match="in use by another Moorage"):
        second.start()
    assert invoke_health(server)


def invoke_health(server: MoorageServer) -> bool:
    with urllib.request.urlopen(f"{server.url}/_moorage/health") as reply:
        return bool(reply.status == 200)
