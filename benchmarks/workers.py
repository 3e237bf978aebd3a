"""One gateway process beside two (`--workers 2`): what a request costs them, and how evenly they share the work.

Usage: python benchmarks/workers.py [--rounds 5] [--seconds 4] [--connections 32]

`moorage serve` as users run it, in front of the echo container. Each gateway has a core for itself as far as the
others leave it: with two cores, the container and the load generator (wrk) need them too, so the throughput seen is
that of everything together. What two gateways could do with the load elsewhere is told by the processor time that a
request costs them, which is read from the kernel, and by how evenly they share the requests: how many each has had
is told by the bytes it has read.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bare_gateway import BODY
from harness import (
    HERE,
    SUBJECT_CORE,
    Effort,
    connections_of,
    run_alone,
    take_turns,
    wait_until_answered,
    wrk,
)
from moorage_server import GATEWAY, MoorageServer, moorage_serve
from signing import signed
from tables import Table

COUNTS = {"1 gateway": 1, "2 gateways": 2}


@dataclass(frozen=True)
class Use:
    """What a process has used up to now."""

    cpu_seconds: float
    bytes_read: int


@dataclass(frozen=True)
class Run:
    requests_per_second: float
    cpu_microseconds: float
    """Of all gateways, for a request."""
    busiest_percent: float
    """The share of the requests that the gateway with the most of them had."""

    @property
    def until_full(self) -> float:
        """How many requests a second there can be until that gateway has no more of its core left."""
        return 1e6 / self.cpu_microseconds / (self.busiest_percent / 100)


def measure(effort: Effort) -> list[Table]:
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_serving(count)) for name, count in COUNTS.items()}
        for server in servers.values():
            server.deploy("echo", {"Image": "benchmark"})
            for number, pid in enumerate(server.processes(GATEWAY)):
                _pin(pid, cores[(SUBJECT_CORE + number) % len(cores)])
        runs = take_turns(
            list(COUNTS), effort.rounds, lambda name: measure_one(servers[name], effort), warm_up=True
        )
    found = {name: [vars(run) for run in each] for name, each in runs.items()}
    return [
        Table(
            name="workers",
            title="One gateway process and two",
            setup=f"{connections_of(effort.connections)}, {effort.rounds} rounds of {effort.seconds} s, on "
            f"{len(cores)} cores, which the gateways share with the container and the load generator.",
            figures={
                "requests/s, everything together": _column(found, "requests_per_second"),
                "gateway µs a request": _column(found, "cpu_microseconds"),
                "requests of the busiest, %": _column(found, "busiest_percent"),
                "requests/s until the busiest is full": {
                    name: [run.until_full for run in each] for name, each in runs.items()
                },
            },
            base="1 gateway",
            compared=["requests/s, everything together", "requests/s until the busiest is full"],
        )
    ]


def measure_one(server: MoorageServer, effort: Effort) -> Run:
    url = f"{server.url}/endpoints/echo/invocations"
    headers = signed(url, BODY, key=server.key)
    assert wait_until_answered(url, BODY, headers) == BODY
    gateways = server.processes(GATEWAY)
    before = [use_of(pid) for pid in gateways]
    load = wrk(
        url, body=BODY, headers=headers, seconds=effort.seconds, connections=effort.connections, core=None
    )
    after = [use_of(pid) for pid in gateways]
    cpu = sum(late.cpu_seconds - early.cpu_seconds for early, late in zip(before, after, strict=True))
    read = [late.bytes_read - early.bytes_read for early, late in zip(before, after, strict=True)]
    return Run(load.requests_per_second, cpu / load.requests * 1e6, max(read) / sum(read) * 100)


def use_of(pid: int) -> Use:
    process = Path(f"/proc/{pid}")
    nanoseconds = sum(int(each.read_text().split()[0]) for each in process.glob("task/*/schedstat"))
    lines = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
    return Use(nanoseconds / 1e9, int(lines["rchar"]))


@contextmanager
def _serving(workers: int) -> Iterator[MoorageServer]:
    with tempfile.TemporaryDirectory() as folder:
        image = HERE / "echo_container.py"
        with moorage_serve(Path(folder), "--workers", workers, image=image) as server:
            yield server


def _pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _column(found: dict[str, list[dict[str, float]]], field: str) -> dict[str, list[float]]:
    return {name: [run[field] for run in each] for name, each in found.items()}


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
