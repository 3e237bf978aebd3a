"""What 25 MB bodies do to everyone else, and to the gateway's memory.

Usage: python benchmarks/large_bodies.py [--rounds 3] [--seconds 4] [--megabytes 25] [--at-once 1 8]

The gateway has core 0 for itself. Clients that send a large body, and get it back, over and over, share core 1 with
the container that they call; both only get what the others leave there (SCHED_IDLE), so that what is measured is the
gateway and not the crowd on its neighbour. The client that measures sends small requests to another endpoint, one
after the other over four connections, right before and during. Figures are medians over the rounds. Memory is the
gateway's peak with one body at a time, above what it has with none.

The exit status is 1 if one large body at a time makes the p99 of others more than 5 ms longer, or takes more than
three times its size of memory.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bare_gateway import KEY, gateway
from front_door import Figures, measure
from harness import HERE, LOAD_CORE, SUBJECT_CORE, free_port, process, wait_for
from moorage.config import Settings
from moorage.routing.table import route_document
from moorage.runtime.gateway_process import spare_the_collector
from signing import signed

MB = 1_000_000
BAR_MS = 5.0
BAR_MEMORY = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--megabytes", type=int, default=25)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--send", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(*arguments.serve))
        return 0
    if arguments.send:
        send_over_and_over(*arguments.send)
        return 0
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        echo_port, large_port, port = free_port(), free_port(), free_port()
        echo = (sys.executable, HERE / "echo_container.py")
        stack.enter_context(process(*echo, echo_port))
        stack.enter_context(process("chrt", "-i", "0", *echo, large_port))
        command = (sys.executable, __file__, "--serve", port, echo_port, large_port)
        served = stack.enter_context(process(*command, core=SUBJECT_CORE))
        for each in (echo_port, large_port, port):
            wait_for(each)
        measure(port, 1.0)
        print(f"{arguments.megabytes} MB bodies, there and back\n")
        print(
            f"{'at once':>8} {'bodies/s':>9} {'MB/s':>7} {'idle p50':>9} {'p99 ms':>7} "
            f"{'under p50':>10} {'p99 ms':>7} {'peak MB':>8} {'x body':>7}"
        )
        kept = True
        for number in arguments.at_once:
            kept &= run(number, arguments.rounds, arguments.seconds, arguments.megabytes, port, served.pid)
    return 0 if kept else 1


async def serve(port: int, echo_port: int, large_port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    server = gateway(listener, echo_port, Settings(max_body_bytes=100 * MB, max_response_bytes=100 * MB))
    instance = {"instance_id": "large", "host": "127.0.0.1", "port": large_port, "generation": 1}
    variant = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": [instance]}
    server.table.put(
        route_document(account_id=KEY.account_id, name="large", region="us-east-1", variants=[variant])
    )
    async with server.running(with_feed=False):
        spare_the_collector()
        await asyncio.Event().wait()


def run(number: int, rounds: int, seconds: float, megabytes: int, port: int, pid: int) -> bool:
    idle: list[Figures] = []
    under: list[Figures] = []
    rates, peaks = [], []
    for _ in range(rounds):
        idle.append(measure(port, seconds))
        before = resident_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        with senders(number, port, megabytes) as rate:
            under.append(measure(port, seconds))
            peaks.append(resident_mb(pid, "VmHWM") - before)
            rates.append(rate())
    added = statistics.median(u.p99_ms - i.p99_ms for i, u in zip(idle, under, strict=True))
    peak, bodies = max(peaks), statistics.median(rates)
    print(
        f"{number:8} {bodies:9.1f} {bodies * megabytes:7.0f} {median(i.p50_ms for i in idle):9.2f} "
        f"{median(i.p99_ms for i in idle):7.2f} {median(u.p50_ms for u in under):10.2f} "
        f"{median(u.p99_ms for u in under):7.2f} {peak:8.0f} {peak / megabytes / number:7.2f}"
    )
    return number > 1 or (added <= BAR_MS and peak <= BAR_MEMORY * megabytes)


@contextmanager
def senders(number: int, port: int, megabytes: int) -> Iterator[Callable[[], float]]:
    """So many clients at work. Gives a function that ends them, and says how many bodies a second came back."""
    with ExitStack() as stack:
        command = [sys.executable, __file__, "--send", str(port), str(megabytes)]
        each = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
        for sender in each:
            stack.callback(sender.kill)
        for sender in each:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        begun = time.monotonic()

        def rate() -> float:
            seconds = time.monotonic() - begun
            for sender in each:
                sender.send_signal(signal.SIGTERM)
            return sum(len(sender.communicate()[0].splitlines()) for sender in each) / seconds

        yield rate
    time.sleep(0.5)  # the gateway has seen them go by then


def median(values: Iterator[float]) -> float:
    return statistics.median(list(values))


def resident_mb(pid: int, what: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / MB


def send_over_and_over(port: int, megabytes: int) -> None:
    """A line for each body that has come back."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    body = os.urandom(MB) * megabytes
    path = "/endpoints/large/invocations"
    headers = signed(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/octet-stream"})
    lines = [f"{name}: {value}" for name, value in headers.items()]
    first = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines, f"Content-Length: {len(body)}"]
    head = "\r\n".join([*first, "", ""]).encode()
    buffer = bytearray(MB)
    print("ready", flush=True)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while True:
            sock.sendall(head)
            sock.sendall(body)
            reply = b""
            while b"\r\n\r\n" not in reply:
                reply += sock.recv(4096)
            assert reply.startswith(b"HTTP/1.1 200"), reply
            came = len(reply.partition(b"\r\n\r\n")[2])
            while came < len(body):
                came += sock.recv_into(buffer)
            print(time.monotonic(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
