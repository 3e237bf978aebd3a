"""A model that tries to get at what is not its own, in a real server: every attempt is refused.

With bubblewrap, and with users of their own alone: the second needs root, and a Python that other users reach.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.launchers import bubblewrap
from moorage.launchers.bubblewrap import View
from tests.servers import MoorageServer

NOSY = {
    "code/inference.py": """
import json, os, signal, socket

def model_fn(model_dir):
    return None

def connect(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(path)

def files(count):
    opened = []
    for _ in range(int(count)):
        opened.append(open("/dev/null"))

def forks(count):
    children = []
    try:
        for _ in range(int(count)):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

ATTEMPTS = {
    "read": lambda path: open(path, "rb").read(1),
    "list": os.listdir,
    "write": lambda path: open(path, "ab").close(),
    "connect": connect,
    "signal": lambda pid: os.kill(int(pid), 0),
    "environment": lambda pid: open(f"/proc/{pid}/environ", "rb").read(1),
    "root": lambda pid: os.listdir(f"/proc/{pid}/root/"),
    "files": files,
    "forks": forks,
}

def transform_fn(model, body, content_type, accept):
    replies = {}
    for what, target in json.loads(body):
        try:
            ATTEMPTS[what](target)
            replies[f"{what} {target}"] = "done"
        except Exception as error:
            replies[f"{what} {target}"] = type(error).__name__
    return json.dumps({"replies": replies, "environment": dict(os.environ), "uid": os.getuid()}), "application/json"
"""
}
VICTIM = {"code/inference.py": NOSY["code/inference.py"], "weights.bin": b"weights"}
NO_VIEW = bubblewrap.why_unusable(View(), uid=None)
PYTHON_IS_CLOSED = any(
    not parent.stat().st_mode & 0o001
    for parent in [*Path(sys.executable).resolve().parents, Path(__file__).parent]
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("auto", marks=pytest.mark.skipif(NO_VIEW is not None, reason=str(NO_VIEW))),
        pytest.param(
            "none",
            marks=pytest.mark.skipif(
                os.geteuid() != 0 or PYTHON_IS_CLOSED,
                reason="needs root, and a Python that other users reach",
            ),
        ),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[MoorageServer]:
    """Its data directory has what one should have: others' models, a database, keys."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        running = MoorageServer(
            Path(directory) / "data",
            container_isolation=request.param,
            container_max_open_files=200,
            container_max_processes=100,
            environment={"AWS_SECRET_ACCESS_KEY": "of-the-server"},
        ).start()
        try:
            running.deploy("nosy", NOSY)
            running.deploy("victim", VICTIM)
            yield running
        finally:
            assert running.stop() == 0
            assert not running.processes()


def ask(server: MoorageServer, attempts: list[tuple[str, object]]) -> dict[str, Any]:
    reply = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="nosy", Body=json.dumps([(what, str(target)) for what, target in attempts])
    )
    answer: dict[str, Any] = json.loads(reply["Body"].read())
    return answer


def instance_of(server: MoorageServer, endpoint: str) -> Path:
    """The directory of the endpoint's only instance."""
    (log,) = (server.data_dir / "logs").glob(f"*/{endpoint}/*/*/*.log")
    return server.data_dir / "instances" / log.stem


def test_no_file_of_the_server_can_be_read(server: MoorageServer) -> None:
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    others = [path for path in files if not path.is_relative_to(instance_of(server, "nosy"))]
    named = {path.name for path in others}
    assert {"credentials", "moorage.db", "weights.bin", "model.tar.gz", "secret-key"} - named <= {
        "secret-key"
    }
    replies = ask(server, [("read", path) for path in others])["replies"]
    assert {what: reply for what, reply in replies.items() if reply == "done"} == {}


def test_no_directory_of_the_server_can_be_looked_into(server: MoorageServer) -> None:
    directories = [path for path in server.data_dir.rglob("*") if path.is_dir()]
    own = instance_of(server, "nosy")
    others = [server.data_dir, *(path for path in directories if not path.is_relative_to(own))]
    attempts = [(what, path) for path in others for what in ("list", "write")]
    replies = ask(server, [(what, path if what == "list" else path / "new") for what, path in attempts])[
        "replies"
    ]
    caches = str(server.data_dir / "environments" / "")
    done = [what for what, reply in replies.items() if reply == "done"]
    assert [what for what in done if caches not in what] == []
    assert len(done) <= 2, "its own cache directory, where it is seen at all"


def test_no_socket_of_the_server_can_be_connected_to(server: MoorageServer) -> None:
    sockets = [path for path in server.data_dir.rglob("*.sock") if path.is_socket()]
    assert {path.name for path in sockets} >= {"controller.sock", "feed.sock", "launcher.sock", "s3.sock"}
    replies = ask(server, [("connect", path) for path in sockets])["replies"]
    assert "done" not in replies.values()


def test_no_other_process_can_be_signalled_or_looked_into(server: MoorageServer) -> None:
    own = str(instance_of(server, "nosy").name).encode()
    others = [pid for pid in server.processes() if own not in Path(f"/proc/{pid}/environ").read_bytes()]
    assert len(others) >= 5
    attempts = [(what, pid) for pid in [1, *others] for what in ("signal", "environment", "root")]
    if NO_VIEW is None:  # in its own numbering, the low ones are its own
        attempts = [(what, pid) for what, pid in attempts if pid > 100]
    replies = ask(server, attempts)["replies"]
    assert "done" not in replies.values(), replies


def test_its_environment_has_nothing_of_the_servers(server: MoorageServer) -> None:
    environment = ask(server, [])["environment"]
    assert "of-the-server" not in environment.values()
    assert [name for name in environment if name.startswith("MOORAGE_")] == [
        name
        for name in environment
        if name
        in (
            *("MOORAGE_DATA_DIR", "MOORAGE_INSTANCE_ID", "MOORAGE_ENVIRONMENTS_DIR", "MOORAGE_ENDPOINT_URL"),
            *("MOORAGE_MODEL_FAMILY", "MOORAGE_FRAMEWORK_VERSION", "MOORAGE_FRAMEWORK_VERSIONS"),
        )
    ]


def test_limits_hold_and_the_model_goes_on(server: MoorageServer) -> None:
    replies = ask(server, [("files", 1000), ("forks", 1000), ("files", 10)])["replies"]
    expected = "BlockingIOError" if os.geteuid() == 0 else replies["forks 1000"]
    assert replies == {"files 1000": "OSError", "forks 1000": expected, "files 10": "done"}


def test_a_model_cannot_be_changed_by_its_own_container(server: MoorageServer) -> None:
    where = "/opt/ml" if NO_VIEW is None and "bubblewrap" in server.log else str(instance_of(server, "nosy"))
    replies = ask(
        server,
        [("read", f"{where}/model/code/inference.py"), ("write", f"{where}/model/code/inference.py")],
    )["replies"]
    assert replies[f"read {where}/model/code/inference.py"] == "done"
    assert replies[f"write {where}/model/code/inference.py"] in ("PermissionError", "OSError")


def test_containers_run_as_a_user_of_their_own(server: MoorageServer) -> None:
    uid = ask(server, [])["uid"]
    assert uid > 2**30 if os.geteuid() == 0 else uid == os.geteuid()
