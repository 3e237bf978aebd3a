"""What much of everything does to one gateway core: endpoints, instances, idle connections, control-plane reads.

Usage: python benchmarks/growth.py [--rounds 5] [--seconds 4] [--connections 32]

Each contender is a gateway of its own on one core, with its routes from a feed as from the controller: 250 endpoints
with one instance each (`few`), 10,000 endpoints, 250 endpoints with 1,000 instances together (addresses of one echo
container), and 250 endpoints beside 10,000 idle client connections, each of which has called once. The others wait
while one is measured. wrk calls 250 of the endpoints in turn.

Then a whole `moorage serve`, without and with 1,000 DescribeEndpoint a second beside the invocations.
"""

import asyncio
import itertools
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bare_gateway import BODY, KEY, gateway
from harness import (
    HERE,
    LOAD_CORE,
    SUBJECT_CORE,
    Effort,
    Load,
    free_port,
    process,
    run_alone,
    take_turns,
    wait_for,
    wrk,
)
from moorage.config import Settings
from moorage.controller.feed import Feed
from moorage.routing.table import route_document
from moorage.runtime.gateway_process import spare_the_collector
from moorage_server import GATEWAY, moorage_serve
from overload import Crowd
from signing import signed, signed_request
from tables import Table
from workers import use_of

CALLED = 250
IDLE = 10_000
READS = 1000
ALONE, BESIDE = "invocations alone", "beside reads"
FEW, ENDPOINTS, INSTANCES, CONNECTIONS = "few", "10,000 endpoints", "1,000 instances", "10,000 connections"
SIZES = {
    FEW: (CALLED, 1),
    ENDPOINTS: (10_000, 1),
    INSTANCES: (CALLED, 1000 // CALLED),
    CONNECTIONS: (CALLED, 1),
}
"""Endpoints, and the instances of each."""


@dataclass
class Run:
    load: Load
    gateway_us: float
    """Processor time of the gateway for a request."""


@dataclass
class Grown:
    """A gateway under measurement, and what its growth cost."""

    port: int
    pid: int
    whole_table_ms: float
    new_route_ms: float
    memory_mib: float


def measure(effort: Effort) -> list[Table]:
    _allow_many_files()
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        echo_port = free_port()
        stack.enter_context(process(sys.executable, HERE / "echo_container.py", echo_port, "0.0.0.0"))  # noqa: S104
        wait_for(echo_port)
        grown = {name: stack.enter_context(_grown(echo_port, *size)) for name, size in SIZES.items()}
        idle = grown[CONNECTIONS]
        before = _memory_mib(idle.pid)
        stack.enter_context(_idle_connections(idle.port, IDLE))
        each_kib = (_memory_mib(idle.pid) - before) * 1024 / IDLE
        idle.memory_mib = _memory_mib(idle.pid)
        runs = take_turns(list(SIZES), effort.rounds, lambda name: _run(grown[name], effort), warm_up=True)
    costs = Table(
        name="growth-costs",
        title="What growth costs",
        setup=f"Memory of the gateway; an idle connection takes {each_kib:.1f} KiB of it. The time from the feed's "
        "sending to the gateway's word that it has the whole table, and a new route in it.",
        figures={
            "memory MiB": {name: [each.memory_mib] for name, each in grown.items()},
            "whole table ms": {name: [each.whole_table_ms] for name, each in grown.items()},
            "new route ms": {name: [each.new_route_ms] for name, each in grown.items()},
        },
    )
    times = f"{effort.rounds} rounds of {effort.seconds} s"
    setup = f"{times}, {effort.connections} connections, {CALLED} endpoints called."
    return [
        costs,
        _table("growth", "One gateway core that has grown", setup, FEW, runs),
        _beside_reads(effort),
    ]


def _run(grown: Grown, effort: Effort) -> Run:
    return _timed([grown.pid], lambda: _load(grown.port, effort))


def _timed(gateways: Sequence[int], load: Callable[[], Load]) -> Run:
    before = sum(use_of(pid).cpu_seconds for pid in gateways)
    found = load()
    spent = sum(use_of(pid).cpu_seconds for pid in gateways) - before
    return Run(found, spent / found.requests * 1e6)


def _table(name: str, title: str, setup: str, base: str, runs: dict[str, list[Run]]) -> Table:
    columns: dict[str, Callable[[Run], float]] = {
        "requests/s": lambda run: run.load.requests_per_second,
        "p50 ms": lambda run: run.load.p50_ms,
        "p99 ms": lambda run: run.load.p99_ms,
        "gateway µs a request": lambda run: run.gateway_us,
    }
    return Table(
        name=name,
        title=title,
        setup=setup,
        figures={
            figure: {who: [column(run) for run in each] for who, each in runs.items()}
            for figure, column in columns.items()
        },
        base=base,
        compared=["requests/s"],
    )


def _memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _allow_many_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- a gateway that has grown -----------------------------------------------------------------------------


@contextmanager
def _grown(echo_port: int, endpoints: int, instances: int) -> Iterator[Grown]:
    """Its feed is made in this process, in a thread."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="growth-")))
        settings = Settings(data_dir=folder)
        settings.run_dir.mkdir()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, loop.stop)

        def do(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)

        feed = Feed(gateways=1)
        do(feed.listen(settings.feed_socket))

        async def fill() -> None:
            for number in range(endpoints):
                feed.put(_route(number, echo_port, instances))
            feed.begin()

        async def once_more() -> float:
            begun = time.perf_counter()
            feed.put(_route(endpoints, echo_port, instances))
            await feed.synced(timeout_seconds=60)
            return (time.perf_counter() - begun) * 1000

        async def whole() -> float:
            begun = time.perf_counter()
            feed.begin()
            await feed.synced(timeout_seconds=60)
            return (time.perf_counter() - begun) * 1000

        do(fill())
        port = free_port()
        command = (sys.executable, __file__, "--serve", port, folder)
        served = stack.enter_context(process(*command, core=SUBJECT_CORE))
        wait_for(port)
        do(feed.synced(timeout_seconds=60))
        whole_ms, new_ms = do(whole()), do(once_more())
        yield Grown(port, served.pid, whole_ms, new_ms, _memory_mib(served.pid))
        do(_closed(feed))


async def _closed(feed: Feed) -> None:
    feed.close()


def _route(number: int, echo_port: int, instances: int) -> dict[str, Any]:
    each = [
        {
            "instance_id": f"i-{number}-{n}",
            "host": f"127.2.{number}.{n + 1}" if instances > 1 else "127.0.0.1",
            "port": echo_port,
            "generation": 1,
        }
        for n in range(instances)
    ]
    variant = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": each}
    return route_document(
        account_id=KEY.account_id, name=f"endpoint-{number:05}", region="us-east-1", variants=[variant]
    )


async def _serve(port: int, folder: Path) -> None:
    settings = Settings(
        data_dir=folder,
        max_connections_per_client=0,
        max_concurrent_invocations_per_instance=0,
        idle_timeout_seconds=3600,
        audit_log="off",
    )
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    async with gateway(listener, port, settings).running():
        spare_the_collector()
        await asyncio.Event().wait()


# --- beside reads of the control plane --------------------------------------------------------------------


def _beside_reads(effort: Effort) -> Table:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="growth-")))
        server = stack.enter_context(moorage_serve(folder, image=HERE / "echo_container.py"))
        server.deploy("echo", {"Image": "benchmark"})
        for pid in server.processes(GATEWAY):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {SUBJECT_CORE})
        url = f"{server.url}/endpoints/echo/invocations"
        headers = signed(url, BODY, key=server.key)
        port = int(server.url.rpartition(":")[2])
        asked = '{"EndpointName": "echo"}'
        lines = {"X-Amz-Target": "SageMaker.DescribeEndpoint", "Content-Type": "application/x-amz-json-1.1"}
        lines = signed(f"{server.url}/", asked, lines, key=server.key) | {"Content-Length": str(len(asked))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        raw = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}\r\n{asked}".encode()
        answered: list[float] = []

        def invocations() -> Load:
            return wrk(
                url, body=BODY, headers=headers, seconds=effort.seconds, connections=effort.connections
            )

        def run(name: str) -> Run:
            gateways = server.processes(GATEWAY)
            if name == ALONE:
                return _timed(gateways, invocations)
            with ThreadPoolExecutor(1) as executor:
                reads = executor.submit(asyncio.run, Crowd(port).run(READS, effort.seconds, raw))
                found = _timed(gateways, invocations)
                answered.append(len(reads.result().good) / effort.seconds)
            return found

        runs = take_turns([ALONE, BESIDE], effort.rounds, run, warm_up=True)
    setup = (
        f"`moorage serve`, its gateway on a core of its own. Of the {READS:,} reads a second that were asked, "
        f"{statistics.median(answered):,.0f} were answered; what was more was refused (ThrottlingException)."
    )
    return _table("growth-reads", "Invocations beside reads of the control plane", setup, ALONE, runs)


@contextmanager
def _idle_connections(port: int, count: int) -> Iterator[None]:
    raw = signed_request(port, "/endpoints/endpoint-00000/invocations", BODY)
    addresses = itertools.cycle(f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000))
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), 10, (next(addresses), 0))
            )
            sock.sendall(raw)
            reply = sock.recv(65536)
            while not reply.endswith(BODY.encode()):
                more = sock.recv(65536)
                assert more, reply
                reply += more
        yield


def _load(port: int, effort: Effort) -> Load:
    """wrk calls the endpoints in turn, each with a signature of its own."""
    requests = []
    for number in range(CALLED):
        path = f"/endpoints/endpoint-{number:05}/invocations"
        headers = signed(f"http://127.0.0.1:{port}{path}", BODY)
        lines = ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items())
        requests.append(f'wrk.format("POST", "{path}", {{{lines}}}, body)')
    script = f"""
        body = [==[{BODY}]==]
        function init() requests = {{ {", ".join(requests)} }}; at = 0 end
        function request() at = at % {CALLED} + 1; return requests[at] end
        function done(summary, latency)
            local e = summary.errors
            io.write(string.format("FIGURES %d %d %f %f %d", summary.requests, summary.duration,
                latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
        end
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        url = f"http://127.0.0.1:{port}"
        command = ["wrk", "-t1", f"-c{effort.connections}", f"-d{effort.seconds}s", "-s", file.name, url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"FIGURES (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", out)
    if not found or int(found[5]):
        raise SystemExit(f"the run had errors, so its figures count for nothing:\n{out}")
    count, microseconds = int(found[1]), int(found[2])
    return Load(count, count / microseconds * 1e6, float(found[3]) / 1000, float(found[4]) / 1000)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _allow_many_files()
        uvloop.run(_serve(int(sys.argv[2]), Path(sys.argv[3])))
    else:
        sys.exit(run_alone(__doc__, measure))
