"""Models that can predict in batches, served by Moorage and by LitServe, each with batches and without.

Usage: python benchmarks/model_host.py [--rounds 5] [--seconds 4] [--connections 32]

Every request has one row of 28 numbers. Each server has core 0 for all of its processes (Moorage: gateway, controller
and model host), the load generator has core 1. "Alone" is what the model does on core 0 in batches of 32 with nothing
around it: no server can do more. Moorage verifies SigV4 on every request. The torch model needs
`make build/frameworks`.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

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
from servers import JSON, Running
from signing import signed
from tables import Table

FOLDER = HERE / "model_servers/batchable"
FILES = {"forest": "model.joblib", "onnx": "model.onnx", "mlp (torch)": "model.pt"}
IMAGES = {"mlp (torch)": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2-cpu"}
BODY = json.dumps([[round(0.01 * number, 2) for number in range(28)]])
ALONE, MOORAGE, LITSERVE = "alone, in batches of 32", "moorage", "litserve"
BATCHES = 32
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def python_of(model: str) -> Path:
    """Of an environment that has the model's packages."""
    return BUILD / "frameworks/bin/python" if "torch" in model else Path(sys.executable)


@contextmanager
def moorage(model: str, file: Path, batch: int) -> Iterator[Running]:
    with (
        tempfile.TemporaryDirectory() as folder,
        moorage_serve(Path(folder), core=SUBJECT_CORE, python=python_of(model)) as server,
    ):
        archive = Path(folder) / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(file, FILES[model])
        s3 = server.client("s3")
        s3.create_bucket(Bucket="models")
        s3.upload_file(str(archive), "models", "model.tar.gz")
        environment = ONE_THREAD | ({"MOORAGE_BATCH_SIZE": str(batch)} if batch > 1 else {})
        container = {
            "Image": IMAGES.get(model, "moorage/modelhost"),
            "ModelDataUrl": "s3://models/model.tar.gz",
            "Environment": environment,
        }
        server.deploy("model", container)
        url = f"{server.url}/endpoints/model/invocations"
        yield Running(url, signed(url, BODY, key=server.key), BODY)


@contextmanager
def litserve(model: str, file: Path, batch: int) -> Iterator[Running]:
    port = free_port()
    packages = subprocess.run(
        [python_of(model), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    command = (BUILD / "bench-litserve/bin/python", FOLDER / "litserve_batches.py", port)
    name = model.partition(" ")[0]
    with process(
        *command, name, file, batch, packages, environment=ONE_THREAD, core=SUBJECT_CORE, quiet=True
    ):
        yield Running(f"http://127.0.0.1:{port}/predict", JSON, BODY)


def alone(model: str, file: Path, seconds: int) -> Load:
    command = ["taskset", "-c", str(SUBJECT_CORE), python_of(model), FOLDER / "models.py", "--alone"]
    done = subprocess.run(
        [*map(str, command), model.partition(" ")[0], str(file), str(seconds)],
        env={"PATH": "/usr/bin:/bin", **ONE_THREAD}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Load(0, float(done.stdout), 0.0, 0.0)


Server = Callable[[str, Path, int], AbstractContextManager[Running]]
SERVERS: dict[str, tuple[Server, int]] = {
    f"{MOORAGE}, in batches": (moorage, BATCHES),
    MOORAGE: (moorage, 1),
    f"{LITSERVE}, in batches": (litserve, BATCHES),
    LITSERVE: (litserve, 1),
}


def measure(effort: Effort) -> list[Table]:
    return [table for model in FILES if python_of(model).exists() for table in measure_model(model, effort)]


def measure_model(model: str, effort: Effort) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILES[model]
        train = [python_of(model), FOLDER / "models.py", model.partition(" ")[0], file]
        subprocess.run(list(map(str, train)), check=True)

        def one(name: str) -> tuple[Load, Load]:
            if name == ALONE:
                load = alone(model, file, effort.seconds)
                return load, load
            server, batch = SERVERS[name]
            with server(model, file, batch) as running:
                return measure_one(running, effort)

        loads = take_turns([*SERVERS, ALONE], effort.rounds, one)
    setup = (
        f"{effort.rounds} rounds of {effort.seconds} s, each server started anew in each round, all of its processes "
        "on one core, the load generator on another. Moorage verifies SigV4 on every request."
    )
    tables = []
    for i, count in enumerate((effort.connections, 1)):
        runs = {name: [each[i] for each in found] for name, found in loads.items()}
        figures = {
            "requests/s": {
                name: [load.requests_per_second for load in found] for name, found in runs.items()
            },
            "p50 ms": {
                name: [load.p50_ms for load in found] for name, found in runs.items() if name != ALONE
            },
            "p99 ms": {
                name: [load.p99_ms for load in found] for name, found in runs.items() if name != ALONE
            },
        }
        tables.append(
            Table(
                name=f"model-host-{model.partition(' ')[0]}-{count}",
                title=f"{model}, {connections_of(count)}",
                setup=setup,
                figures=figures,
                base=f"{MOORAGE}, in batches",
                compared=["requests/s"],
            )
        )
    return tables


def measure_one(running: Running, effort: Effort) -> tuple[Load, Load]:
    """With many connections, and with one."""
    wait_until_answered(running.url, running.body, running.headers)

    def load(seconds: int, connections: int) -> Load:
        return wrk(
            running.url, body=running.body, headers=running.headers, seconds=seconds, connections=connections
        )

    load(1, effort.connections)  # warms it up
    return load(effort.seconds, effort.connections), load(effort.seconds, 1)


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
