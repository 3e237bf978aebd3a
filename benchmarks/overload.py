"""What becomes of invocations when more come than can be done: by the instance, and by the gateway itself.

Usage: python benchmarks/overload.py [--rounds 3] [--seconds 4] [--capacity 1000] [--most 64]

The gateway has core 0, the container and the client share core 1.

An instance: a container does `--capacity` invocations a second; the gateway lets `--most` of them into it at once.
The client sends at a pace that does not wait for replies (an open loop): at 0.8, 1, 2, 3 and 5 times the capacity.
Goodput is what was answered with 200 a second; its p99 should be about most / capacity, and refusals be quick. Beside
it the same without a limit.

The gateway: wrk over 32 and 1,000 connections; over 1,000 with three requests sent at once on each (more than it can
do, whatever it can do); and with a new connection for each request.

The exit status is 1 if goodput at 3 times the capacity is below 90 % of the peak.
"""

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bare_gateway import BODY, PATH, serve_gateway
from harness import HERE, LOAD_CORE, SUBJECT_CORE, free_port, process, wait_for
from moorage.config import Settings
from signing import signed, signed_request

FACTORS = (0.8, 1.0, 2.0, 3.0, 5.0)
BAR = 0.9
PATIENCE_SECONDS = 2.0
"""How long a caller of the unlimited gateway waits before its answer is worth nothing."""


@dataclass
class Outcome:
    """Of one run. Times are in seconds."""

    seconds: float
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    unanswered: int = 0

    @property
    def goodput(self) -> float:
        """Answers a second that came while somebody was still waiting."""
        return sum(each <= PATIENCE_SECONDS for each in self.good) / self.seconds


class Connection(asyncio.Protocol):
    """One request at a time; back among the free ones when its reply is here."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._reply = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        self._sent = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._reply += data
        head, end, body = self._reply.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            status, self._reply = int(head[9:12]), b""
            self._crowd.answered(self, status, time.perf_counter() - self._sent)

    def close(self) -> None:
        self._transport.abort()


class Crowd:
    """Callers who come at a pace, whether or not those before them have been served."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: deque[Connection] = deque()
        self._all: list[Connection] = []
        self._outcome = Outcome(0)
        self._coming: set[asyncio.Task[None]] = set()

    async def run(self, per_second: float, seconds: float, raw: bytes = b"") -> Outcome:
        raw = raw or signed_request(self._port, PATH, BODY)
        self._outcome = outcome = Outcome(seconds)
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        while (now := loop.time()) < start + seconds:
            due = int((now - start) * per_second)
            for _ in range(due - sent):
                self._call(raw)
            sent = due
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.5)
        outcome.unanswered = sent - len(outcome.good) - len(outcome.refused)
        for each in self._all:
            each.close()
        return outcome

    def answered(self, connection: Connection, status: int, seconds: float) -> None:
        assert status in (200, 400, 503), status  # 400: a call of the control plane that is throttled
        (self._outcome.good if status == 200 else self._outcome.refused).append(seconds)
        self._free.append(connection)

    def _call(self, raw: bytes) -> None:
        if self._free:
            self._free.popleft().send(raw)
        else:
            task = asyncio.ensure_future(self._connect(raw))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _connect(self, raw: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        self._all.append(connection)
        connection.send(raw)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--capacity", type=int, default=1000, help="of the container, a second")
    parser.add_argument("--most", type=int, default=64, help="max_concurrent_invocations_per_instance")
    parser.add_argument(
        "--serve", nargs=3, type=int, metavar=("PORT", "ECHO_PORT", "MOST"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.serve:
        port, echo_port, most = arguments.serve
        settings = Settings(max_connections_per_client=0, max_concurrent_invocations_per_instance=most)
        uvloop.run(serve_gateway(port, echo_port, settings=settings))
        return 0
    os.sched_setaffinity(0, {LOAD_CORE})
    kept = of_instance(arguments.rounds, arguments.seconds, arguments.capacity, arguments.most)
    of_gateway(arguments.rounds, arguments.seconds)
    return 0 if kept >= BAR else 1


# --- an instance ------------------------------------------------------------------------------------------


def of_instance(rounds: int, seconds: float, capacity: int, most: int) -> float:
    """What share of the peak goodput is left at three times the capacity."""
    print(
        f"\nan instance that does {capacity:,} a second; p99 should be about {1000 * most / capacity:.0f} ms\n"
    )
    print(
        f"{'limit':>9} {'offered':>8} {'goodput/s':>10} {'p50 ms':>8} {'p99 ms':>8} "
        f"{'refused/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'unanswered':>11}"
    )
    kept = 0.0
    for limit in (most, 0):
        goodputs = {}
        for factor in FACTORS:
            runs = [offer(factor * capacity, seconds, capacity, limit) for _ in range(rounds)]
            goodputs[factor] = statistics.median(run.goodput for run in runs)
            good, refused = merged(run.good for run in runs), merged(run.refused for run in runs)
            print(
                f"{limit or 'none':>9} {factor:8.1f} {goodputs[factor]:10,.0f} "
                f"{cut(good, 50):8.1f} {cut(good, 99):8.1f} "
                f"{len(refused) / seconds / rounds:10,.0f} {cut(refused, 50):8.1f} {cut(refused, 99):8.1f} "
                f"{sum(run.unanswered for run in runs) // rounds:11,}"
            )
        share = goodputs[3.0] / max(goodputs.values())
        print(f"{'':9} at 3.0 there is {share:.0%} of the peak left")
        kept = kept or share
    return kept


def offer(per_second: float, seconds: float, capacity: int, limit: int) -> Outcome:
    with ExitStack() as stack:
        container_port, port = free_port(), free_port()
        container = (sys.executable, HERE / "limited_container.py", container_port, capacity)
        stack.enter_context(process(*container))
        command = (sys.executable, __file__, "--serve", port, container_port, limit)
        stack.enter_context(process(*command, core=SUBJECT_CORE))
        wait_for(container_port)
        wait_for(port)
        return uvloop.run(Crowd(port).run(per_second, seconds))


def merged(lists: Iterable[list[float]]) -> list[float]:
    return sorted(each for times in lists for each in times)


def cut(times: list[float], percent: int) -> float:
    """A percentile of sorted times, in milliseconds."""
    return 1000 * times[min(len(times) - 1, len(times) * percent // 100)] if times else 0.0


# --- the gateway ------------------------------------------------------------------------------------------


def of_gateway(rounds: int, seconds: float) -> None:
    print("\nthe gateway\n")
    print(f"{'':34} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'MiB':>6}")
    cases = {
        "32 connections": (32, 1, False),
        "1,000 connections": (1000, 1, False),
        "1,000 with 3 requests at once": (1000, 3, False),
        "32, a new one for each request": (32, 1, True),
        "1,000, a new one for each request": (1000, 1, True),
    }
    with ExitStack() as stack:
        echo_port, port = free_port(), free_port()
        stack.enter_context(process(sys.executable, HERE / "echo_container.py", echo_port))
        command = (sys.executable, __file__, "--serve", port, echo_port, 0)
        gateway = stack.enter_context(process(*command, core=SUBJECT_CORE))
        wait_for(echo_port)
        wait_for(port)
        for name, case in cases.items():
            runs = [wrk(port, seconds, *case) for _ in range(rounds)]
            medians = [statistics.median(run[number] for run in runs) for number in range(3)]
            pages = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1])
            print(
                f"{name:34} {medians[0]:11,.0f} {medians[1]:8.2f} {medians[2]:8.2f} "
                f"{pages * resource.getpagesize() / 2**20:6.0f}"
            )


def wrk(port: int, seconds: float, connections: int, at_once: int, fresh: bool) -> tuple[float, float, float]:
    url = f"http://127.0.0.1:{port}{PATH}"
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in signed(url, BODY).items()]
    if fresh:
        lines.append('wrk.headers["Connection"] = "close"')
    script = "\n".join(
        [
            'wrk.method = "POST"',
            f"wrk.body = [==[{BODY}]==]",
            *lines,
            "function init(args)",
            f"  raw = string.rep(wrk.format(), {at_once})",
            "end",
            "function request() return raw end",
        ]
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s"]
        out = subprocess.run([*command, file.name, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        print(out, file=sys.stderr)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p50, p99 = (re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out) for percent in (50, 99))
    assert rate and p50 and p99, out
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return float(rate[1]), float(p50[1]) * scale[p50[2]], float(p99[1]) * scale[p99[2]]


if __name__ == "__main__":
    sys.exit(main())
