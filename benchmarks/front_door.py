"""What attacks on the gateway's door do to everyone else: p99 of signed traffic beside each, compared with none.

Usage: python benchmarks/front_door.py [--rounds 3] [--seconds 4] [--only NAME ...]

The gateway has core 0 for itself. The echo container, the client that measures and the attacker share core 1, where
the attacker only gets what the others leave (SCHED_IDLE), so that what is measured is the gateway and not the crowd
on its neighbour. The client has four connections and sends one request after the other over them, with a pause of a
millisecond. Each round measures every attack right after a time without; ratios are those of the two, and the figures
are medians over the rounds. An attack keeps to the pace that it names, and counts what it really did. Its connections
come from many addresses of 127.0.0.0/8, so that `max_connections_per_client` does not keep them out.

The exit status is 1 if an attack more than doubles the p99.
"""

import argparse
import asyncio
import itertools
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bare_gateway import BODY, PATH, serve_gateway
from harness import HERE, LOAD_CORE, SUBJECT_CORE, free_port, process, wait_for
from moorage.config import Settings
from signing import signed_request

BAR = 2.0
CONNECTIONS = 2000
PIECE = 64 * 1024
REFUSED = b"HTTP/1.1 4"
SMUGGLED = b"GET /_moorage/health HTTP/1.1\r\nHost: smuggled\r\n\r\n"
POST = b"POST /endpoints/echo/invocations HTTP/1.1\r\nHost: a\r\n"
SMUGGLING = [
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: 4\r\nContent-Length: 60\r\n\r\nabcd" + SMUGGLED,
    POST + b"Content-Length: 4, 60\r\n\r\nabcd" + SMUGGLED,
    POST + b"Content-Length: +4\r\n\r\nabcd" + SMUGGLED,
    POST + b"Content-Length: 4 4\r\n\r\nabcd" + SMUGGLED,
    POST + b"Content-Length : 4\r\n\r\nabcd" + SMUGGLED,
    POST + b"Content-Length: 99999999999999999999\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"X: \0\r\n\r\n" + SMUGGLED,
    POST + b"Host: b\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcdXX0\r\n\r\n" + SMUGGLED,
]
"""Requests of which two servers could disagree where they end: RFC 9112, sections 5, 6, 7 and 11.2."""


@dataclass(frozen=True)
class Figures:
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Run:
    idle: Figures
    attacked: Figures
    did: dict[str, float]
    """What the attacker counted, a second."""
    memory_mib: float

    @property
    def ratio(self) -> float:
        return self.attacked.p99_ms / self.idle.p99_ms


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", choices=sorted(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.serve:
        uvloop.run(serve_gateway(*arguments.serve, settings=Settings()))
        return 0
    if arguments.attack:
        name, port = arguments.attack
        uvloop.run(attack(name, int(port)))
        return 0
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        echo_port, port = free_port(), free_port()
        stack.enter_context(process(sys.executable, HERE / "echo_container.py", echo_port))
        command = (sys.executable, __file__, "--serve", port, echo_port)
        gateway = stack.enter_context(process(*command, core=SUBJECT_CORE)).pid
        wait_for(echo_port)
        wait_for(port)
        measure(port, 1.0)
        before = memory_mib(gateway)
        runs: dict[str, list[Run]] = {name: [] for name in arguments.only}
        for _ in range(arguments.rounds):
            for name, each in runs.items():
                each.append(run_of(name, port, gateway, arguments.seconds))
        time.sleep(4.0)  # what lingers has gone by then
        return show(runs, before, memory_mib(gateway))


def run_of(name: str, port: int, gateway: int, seconds: float) -> Run:
    idle = measure(port, seconds)
    command = [sys.executable, __file__, "--attack", name, str(port)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == "ready\n"
    attacked = measure(port, seconds)
    memory = memory_mib(gateway)
    attacker.send_signal(signal.SIGTERM)
    did = json.loads(attacker.communicate(timeout=30)[0])
    time.sleep(0.5)  # its connections are closed by then
    return Run(idle, attacked, did, memory)


def show(runs: dict[str, list[Run]], before: float, after: float) -> int:
    print(f"memory of the gateway: {before:.0f} MiB before, {after:.0f} MiB after")
    print(
        f"{'':12} {'idle p50':>9} {'p99 ms':>7} {'under p50':>10} {'p99 ms':>7} {'ratio':>6} {'MiB':>5}  did"
    )
    worst = 0.0
    for name, each in runs.items():
        ratio = median(run.ratio for run in each)
        worst = max(worst, ratio)
        did = {what: median(run.did[what] for run in each) for what in each[0].did}
        print(
            f"{name:12} {median(r.idle.p50_ms for r in each):9.3f} {median(r.idle.p99_ms for r in each):7.3f} "
            f"{median(r.attacked.p50_ms for r in each):10.3f} {median(r.attacked.p99_ms for r in each):7.3f} "
            f"{ratio:6.2f} {max(r.memory_mib for r in each):5.0f}  "
            + ", ".join(f"{count:,.1f} {what}/s" for what, count in did.items())
        )
    return 1 if worst > BAR else 0


def median(values: Iterator[float]) -> float:
    return statistics.median(list(values))


def measure(port: int, seconds: float) -> Figures:
    """Signed requests, one after the other, over four connections."""
    raw = signed_request(port, PATH, BODY)
    times = []
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(4)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        for client in itertools.cycle(clients):
            if time.monotonic() > end:
                break
            start = time.perf_counter()
            client.sendall(raw)
            reply = client.recv(65536)
            while not reply.endswith(BODY.encode()):
                more = client.recv(65536)
                assert more, reply
                reply += more
            times.append(time.perf_counter() - start)
            assert reply.startswith(b"HTTP/1.1 200"), reply
            time.sleep(0.001)
    cuts = statistics.quantiles(times, n=100)
    return Figures(cuts[49] * 1000, cuts[98] * 1000)


def memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


# --- the attacker -----------------------------------------------------------------------------------------


class Attacker:
    """Makes connections from many addresses, at a pace, and counts what it did."""

    def __init__(self, port: int) -> None:
        self.counts: dict[str, float] = {}
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._addresses = itertools.cycle(f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000))
        self._next_at: dict[str, float] = {}

    def count(self, what: str, amount: float = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + amount

    async def pace(self, what: str, per_second: float, amount: float = 1) -> None:
        """Wait for one's turn to do so much of it. What was missed is not made up for."""
        at = max(self._next_at.get(what, 0.0), self._loop.time())
        self._next_at[what] = at + amount / per_second
        await asyncio.sleep(at - self._loop.time())
        self.count(what, amount)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[socket.socket]:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.bind((next(self._addresses), 0))
            await self._loop.sock_connect(sock, ("127.0.0.1", self._port))
            self.count("connections")
            yield sock

    async def send(self, sock: socket.socket, data: bytes) -> None:
        await self._loop.sock_sendall(sock, data)

    async def read(self, sock: socket.socket) -> bytes:
        return await self._loop.sock_recv(sock, PIECE)


async def smuggle(attacker: Attacker) -> None:
    """500 a second: each reads what it is told. Whatever is not refused, or answered twice, would be a hole."""
    for raw in itertools.cycle(SMUGGLING):
        await attacker.pace("attempts", 500)
        async with attacker.connection() as sock:
            await attacker.send(sock, raw)
            reply = b""
            while data := await attacker.read(sock):
                reply += data
            if not reply.startswith(REFUSED) or reply.count(b"HTTP/1.1 ") != 1:
                attacker.count("holes")


async def slow_loris(attacker: Attacker) -> None:
    """2,000 connections, each of which sends another byte of a header every second."""
    async with attacker.connection() as sock:
        await attacker.send(sock, POST + b"X: ")
        while True:
            await asyncio.sleep(1.0)
            await attacker.send(sock, b"x")
            attacker.count("bytes")


async def half_close(attacker: Attacker) -> None:
    """2,000 sockets, each of which breaks off in the midst of a head, and stays for three seconds without a close."""
    async with attacker.connection() as sock:
        await attacker.send(sock, POST)
        sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(3.0)


async def endless_headers(attacker: Attacker) -> None:
    """25 MB a second, so 100 MB within the time measured, over 100 connections that never end their heads."""
    names = itertools.count(10_000)
    async with attacker.connection() as sock:
        await attacker.send(sock, POST)
        while True:
            lines = b"".join(b"%d: x\r\n" % next(names) for _ in range(PIECE // 10))
            await attacker.pace("MB", 25, len(lines) / 1e6)
            await attacker.send(sock, lines)


async def unsigned_bodies(attacker: Attacker) -> None:
    """50 MB a second over 100 connections: bodies that the limit would allow, of requests that nobody signed."""
    async with attacker.connection() as sock:
        await attacker.send(sock, POST + b"Content-Length: 6000000\r\n\r\n")
        for _ in range(6_000_000 // PIECE):
            await attacker.pace("MB", 50, PIECE / 1e6)
            await attacker.send(sock, bytes(PIECE))


ATTACKS: dict[str, tuple[Callable[[Attacker], Awaitable[None]], int]] = {
    "smuggling": (smuggle, 8),
    "slow-loris": (slow_loris, CONNECTIONS),
    "half-closed": (half_close, CONNECTIONS),
    "headers": (endless_headers, 100),
    "bodies": (unsigned_bodies, 100),
}
"""What each does over and over, and how many do so at once."""


async def attack(name: str, port: int) -> None:
    """Say when all are at work; count from then until SIGTERM, and say that."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    attacker = Attacker(port)
    once, many = ATTACKS[name]

    async def over_and_over(delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            try:
                await once(attacker)
            except ConnectionError:
                attacker.count("cut off")

    tasks = [asyncio.create_task(over_and_over(number / 1000)) for number in range(many)]
    await asyncio.sleep(many / 1000 + 0.5)
    print("ready", flush=True)
    attacker.counts.clear()
    start = loop.time()
    await stopped.wait()
    print(json.dumps({what: count / (loop.time() - start) for what, count in attacker.counts.items()}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
