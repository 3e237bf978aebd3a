"""Moorage with its own model host beside the servers that one would pick instead, each with the same trivial model.

Usage: python benchmarks/servers.py [--rounds 5] [--seconds 4] [--connections 32]

The model gives back what it is given. Each server is set up as its own documentation recommends (see
docs/performance.md) and has core 0 for all of its processes; the load generator has core 1. In every round each
server is started anew, so that no other one is there while it is measured; every answer is compared with what it
should be. Moorage verifies SigV4 on every request.
"""

import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bare_gateway import BODY
from gateway import figures_of
from harness import (
    BUILD,
    HERE,
    SUBJECT_CORE,
    Effort,
    Load,
    connections_of,
    free_port,
    process,
    run_alone,
    take_turns,
    wait_until_answered,
    wrk,
)
from moorage_server import moorage_serve
from signing import JSON, signed
from tables import Table

MODELS = HERE / "model_servers"
MOORAGE = "moorage"
TENSOR = {"name": "instances", "shape": [1, 28], "datatype": "FP64", "data": json.loads(BODY)["instances"][0]}
TENSOR_BODY = json.dumps({"id": "1", "inputs": [TENSOR]}, separators=(",", ":"))
THROUGHPUT = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}


@dataclass(frozen=True)
class Running:
    """Where to send what."""

    url: str
    headers: dict[str, str]
    body: str = BODY


@contextmanager
def moorage() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder, moorage_serve(Path(folder), core=SUBJECT_CORE) as server:
        archive = Path(folder) / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(MODELS / "moorage_echo/code", "code")
        s3 = server.client("s3")
        s3.create_bucket(Bucket="models")
        s3.upload_file(str(archive), "models", "echo.tar.gz")
        container = {"Image": "moorage/modelhost", "ModelDataUrl": "s3://models/echo.tar.gz"}
        server.deploy("echo", container)
        url = f"{server.url}/endpoints/echo/invocations"
        yield Running(url, signed(url, BODY, key=server.key))


@contextmanager
def litserve(*options: str) -> Iterator[Running]:
    port = free_port()
    command = (python_of("litserve"), MODELS / "litserve_echo.py", port, *options)
    with process(*command, core=SUBJECT_CORE, quiet=True):
        yield Running(f"http://127.0.0.1:{port}/predict", JSON)


@contextmanager
def bentoml() -> Iterator[Running]:
    port = free_port()
    command = (python_of("bentoml"), "-m", "bentoml", "serve", "bentoml_echo:Echo", "--host", "127.0.0.1")
    with process(*command, "--port", port, core=SUBJECT_CORE, folder=MODELS, quiet=True):
        yield Running(f"http://127.0.0.1:{port}/predict", JSON)


@contextmanager
def mlserver(workers: int) -> Iterator[Running]:
    ports = {kind: free_port() for kind in ("HTTP", "GRPC", "METRICS")}
    environment = {f"MLSERVER_{kind}_PORT": str(port) for kind, port in ports.items()}
    environment |= {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_DEBUG": "false",
        "MLSERVER_PARALLEL_WORKERS": str(workers),
    }
    with tempfile.TemporaryDirectory() as folder:  # it writes into its directory
        here = Path(shutil.copytree(MODELS / "mlserver_echo", Path(folder) / "echo"))
        command = (BUILD / "bench-mlserver/bin/mlserver", "start", here)
        with process(*command, environment=environment, core=SUBJECT_CORE, folder=here, quiet=True):
            yield Running(f"http://127.0.0.1:{ports['HTTP']}/v2/models/echo/infer", JSON, TENSOR_BODY)


@contextmanager
def ray_serve(**environment: str) -> Iterator[Running]:
    port = free_port()
    command = (python_of("ray"), MODELS / "ray_echo.py", port)
    with process(*command, environment=environment, core=SUBJECT_CORE, quiet=True, stop_seconds=60.0):
        yield Running(f"http://127.0.0.1:{port}/", JSON)


SERVERS: dict[str, Callable[[], AbstractContextManager[Running]]] = {
    MOORAGE: moorage,
    "litserve": litserve,
    "litserve, fast queue": lambda: litserve("--fast-queue"),
    "bentoml": bentoml,
    "mlserver": lambda: mlserver(1),
    "mlserver, no worker pool": lambda: mlserver(0),
    "ray serve": ray_serve,
    "ray serve, high throughput": lambda: ray_serve(**THROUGHPUT),
}


QUICK = (MOORAGE, "litserve", "bentoml", "mlserver")


def measure(effort: Effort, among: Collection[str] = tuple(SERVERS)) -> list[Table]:
    environments = {name: environment_of(name) for name in among if name != MOORAGE}
    absent = {
        name: f"not installed; make {each.relative_to(BUILD.parent)}"
        for name, each in environments.items()
        if not (each / "bin/python").exists()
    }
    present = [name for name in among if name not in absent]
    loads = take_turns(present, effort.rounds, lambda name: measure_one(SERVERS[name], effort))
    counts = (effort.connections, 1)
    many, one = (
        figures_of({name: [each[i] for each in runs] for name, runs in loads.items()}) for i in range(2)
    )
    setup = (
        f"The model echoes {len(BODY)} bytes of JSON (MLServer: a tensor of {len(TENSOR_BODY)} bytes). "
        f"{effort.rounds} rounds of {effort.seconds} s, each server started anew in each round, all of its processes "
        "on one core, the load generator on another, every answer checked. Moorage verifies SigV4 on every request."
    )
    return [
        Table(
            name=f"servers-{count}",
            title=f"Model servers, {connections_of(count)}",
            setup=setup,
            figures=figures,
            base=MOORAGE,
            compared=["requests/s"],
            absent=absent,
        )
        for count, figures in zip(counts, (many, one), strict=True)
    ]


def measure_one(server: Callable[[], AbstractContextManager[Running]], effort: Effort) -> tuple[Load, Load]:
    """With many connections, and with one."""
    with server() as running:
        answer = wait_until_answered(running.url, running.body, running.headers)
        check(running.body, answer)

        def load(seconds: int, connections: int) -> Load:
            return wrk(
                running.url,
                body=running.body,
                headers=running.headers,
                seconds=seconds,
                connections=connections,
                expected=answer,
            )

        load(1, effort.connections)  # warms it up
        return load(effort.seconds, effort.connections), load(effort.seconds, 1)


def check(sent: str, answer: str) -> None:
    """A fast wrong answer is no figure."""
    expected, found = json.loads(sent), json.loads(answer)
    if "inputs" in expected:
        expected, found = expected["inputs"], found["outputs"]
    assert found == expected, answer


def environment_of(server: str) -> Path:
    return BUILD / f"bench-{server.partition(',')[0].partition(' ')[0]}"


def python_of(server: str) -> Path:
    return environment_of(server) / "bin/python"


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
