"""Asynchronous inference: accepting, claiming, picking up, draining, and the memory that large payloads take.

Usage: python benchmarks/async_queue.py [--database-url URL] [--queued 1000000] [--seconds 5] [--gigabytes 1]

Everything but the claims runs through `moorage serve` as users run it: gateway, controller, embedded S3 and the
container on the cores there are, the load generator (`wrk`) beside them. Without `--database-url` the queue is in
SQLite; with `postgresql+asyncpg://…` the database should be an empty one.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, Effort, missing_tools, resident_mib, wrk
from moorage.async_inference.sql import SqlQueue
from moorage.storage.database import open_database
from moorage_server import ACCOUNT, CONTROLLER, GATEWAY, MoorageServer, moorage_serve
from queue_growth import fill
from signing import signed
from tables import Table, markdown

BODY = '{"instances": [[0.1, 0.2, 0.3]]}'


@dataclass(frozen=True, kw_only=True)
class Plan:
    effort: Effort
    database_url: str = ""
    queued: int = 1_000_000
    gigabytes: float = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database-url", default=Plan.database_url)
    parser.add_argument("--queued", type=int, default=Plan.queued)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--gigabytes", type=float, default=Plan.gigabytes)
    given = vars(parser.parse_args())
    effort = Effort(**{name: given.pop(name) for name in ("rounds", "seconds", "connections")})
    if missing := missing_tools():
        print(missing, file=sys.stderr)
        return 2
    for table in measure(Plan(effort=effort, **given)):
        print(f"\n{markdown(table)}")
    return 0


def measure(plan: Plan) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--database-url", plan.database_url] if plan.database_url else []
        with moorage_serve(Path(folder), *options, image=HERE / "async_container.py") as running:
            figures = measure_server(Server(running), Path(folder), plan)
        url = plan.database_url or f"sqlite+aiosqlite:///{folder}/claims.db"
        figures |= asyncio.run(measure_claims(url, plan.queued))
    database = plan.database_url.partition("+")[0] or "SQLite"
    return [
        Table(
            name="async",
            title="Asynchronous inference",
            setup=f"The queue in {database}; all but the claims through `moorage serve` on all cores, with the "
            "load generator beside it.",
            figures={name: {"moorage": values} for name, values in figures.items()},
        )
    ]


def measure_server(server: "Server", folder: Path, plan: Plan) -> dict[str, list[float]]:
    gate, effort = folder / "gate", plan.effort
    server.endpoint("held", limit=16, environment={"GATE": str(gate), "DELAY_SECONDS": "0.001"})
    figures = {
        f"accepted for good from {effort.connections} clients, /s": [
            put(server, "held", effort) for _ in range(effort.rounds)
        ]
    }
    queued = server.unfinished("held")
    gate.touch()
    started = time.perf_counter()
    while left := server.unfinished("held"):
        time.sleep(min(1.0, 0.05 + left / 20_000))
    figures["drained with a model of 1 ms, 16 at a time, /s"] = [queued / (time.perf_counter() - started)]

    server.endpoint("clock", limit=16, environment={"REPLY": "time"})
    figures |= pick_up_figures("idle", [server.pick_up("clock") for _ in range(100)])
    server.endpoint("busy", limit=16, environment={"DELAY_SECONDS": "0.001"})
    with load(server, "busy", per_second=200):
        busy = [server.pick_up("clock") for _ in range(100)]
    figures |= pick_up_figures("while another endpoint takes 200/s", busy)
    return figures | (measure_memory(server, plan.gigabytes) if plan.gigabytes else {})


def pick_up_figures(when: str, seconds: list[float]) -> dict[str, list[float]]:
    cuts = statistics.quantiles(seconds, n=100)
    called = f"from the 202 to the container, {when}"
    return {f"{called}: p50 ms": [cuts[49] * 1000], f"{called}: p99 ms": [cuts[98] * 1000]}


def measure_memory(server: "Server", gigabytes: float) -> dict[str, list[float]]:
    server.endpoint("large", limit=1, environment={})
    size = int(gigabytes * 2**30)
    server.client("s3").upload_fileobj(Zeros(size), "results", "large.bin")
    time.sleep(2)
    before = server.resident_mib()
    peak = dict(before)
    started = time.perf_counter()
    reply = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="large", InputLocation="s3://results/large.bin", InvocationTimeoutSeconds=3600
    )
    while not server.has(reply["OutputLocation"]):
        peak = {name: max(most, server.resident_mib().get(name, 0)) for name, most in peak.items()}
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    called = f"{gigabytes:g} GiB in and out"
    return {f"{called}, s": [seconds]} | {
        f"{called}: growth of the {name}, MiB": [peak[name] - before[name]] for name in sorted(peak)
    }


class Zeros:
    """A file of so many bytes, which takes no memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)


class Server:
    """`moorage serve` with the containers of this benchmark."""

    def __init__(self, running: MoorageServer) -> None:
        self._running = running
        self.client = running.client
        self.client("s3").create_bucket(Bucket="results")

    def endpoint(self, name: str, *, limit: int, environment: Mapping[str, str]) -> None:
        self._running.deploy(
            name,
            {"Image": "benchmark", "Environment": dict(environment)},
            AsyncInferenceConfig={
                "OutputConfig": {"S3OutputPath": f"s3://results/{name}"},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": limit},
            },
        )

    def unfinished(self, name: str) -> int:
        url = f"{self._running.url}/_moorage/async/backlogs"
        headers = signed(url, "", {}, key=self._running.key, method="GET")
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
            backlogs = json.load(reply)["Backlogs"]
        counts = next((each["Counts"] for each in backlogs if each["EndpointName"] == name), {})
        return sum(counts.get(status, 0) for status in ("Queued", "Running"))

    def pick_up(self, name: str) -> float:
        """Seconds from the 202 to the container's first sight of an invocation."""
        reply = self.client("sagemaker-runtime").invoke_endpoint_async(EndpointName=name, Body=BODY)
        accepted = time.time()
        while not self.has(reply["OutputLocation"]):
            time.sleep(0.001)
        return max(0.0, float(self._path(reply["OutputLocation"]).read_text() or accepted) - accepted)

    def has(self, location: str) -> bool:
        return self._path(location).exists()

    def resident_mib(self) -> dict[str, float]:
        """The resident memory of each kind of process of ours."""
        kinds = {"gateway": GATEWAY, "controller": CONTROLLER, "S3": "moorage-s3"}
        return {
            kind: resident_mib(pid) for kind, name in kinds.items() for pid in self._running.processes(name)
        }

    def async_url(self, name: str) -> str:
        return f"{self._running.url}/endpoints/{name}/async-invocations"

    def signed_put(self, name: str) -> dict[str, str]:
        kind = {"X-Amzn-SageMaker-Content-Type": "application/json"}
        return signed(self.async_url(name), BODY, kind, key=self._running.key)

    def _path(self, location: str) -> Path:
        return self._running.data_dir / "s3" / location.removeprefix("s3://")


def put(server: Server, name: str, effort: Effort) -> float:
    """Invocations accepted a second."""
    return wrk(
        server.async_url(name),
        body=BODY,
        headers=server.signed_put(name),
        seconds=effort.seconds,
        connections=effort.connections,
        core=None,
    ).requests_per_second


@contextmanager
def load(server: Server, name: str, *, per_second: int) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        runtime = server.client("sagemaker-runtime")
        while not stop.wait(4 / per_second):
            runtime.invoke_endpoint_async(EndpointName=name, Body=BODY)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def measure_claims(url: str, queued: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    database = await open_database(url)
    try:
        queue = SqlQueue(database)
        await fill(database, queued=queued, finished=0, endpoints=1)
        for most in (1, 16):
            times = []
            for _ in range(200):
                started = time.perf_counter()
                claims = await queue.claim(ACCOUNT, "e0", most=most)
                times.append((time.perf_counter() - started) * 1000)
                assert len(claims) == most
            cuts = statistics.quantiles(times, n=100)
            called = f"claim of {most} with {queued:,} queued"
            figures |= {f"{called}: p50 ms": [cuts[49]], f"{called}: p99 ms": [cuts[98]]}
    finally:
        await database.close()
    return figures


if __name__ == "__main__":
    sys.exit(main())
