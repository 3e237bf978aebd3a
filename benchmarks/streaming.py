"""Response streams through one gateway core: time to the first part, parts a second, memory of an idle stream.

Usage: python benchmarks/streaming.py [--rounds 5] [--seconds 4]

The gateway has core 0 for itself; the streaming container and the client share core 1. Time to the first part is
that of the gateway less that of the container asked directly, medians of alternating calls. Then 2,000 streams with a
part a second run side by side for twice `--seconds`, every part is counted, and the gateway's memory is compared.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from contextlib import ExitStack

import uvloop

from harness import (
    HERE,
    LOAD_CORE,
    SUBJECT_CORE,
    Effort,
    free_port,
    process,
    resident_mib,
    run_alone,
    wait_for,
)
from moorage.wire.eventstream import Decoder
from signing import signed_request
from tables import Table

CALLS = 100
STREAMS = 2000
PARTS = 200_000
PATH = "/endpoints/echo/invocations-response-stream"


def measure(effort: Effort) -> list[Table]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        container, port = free_port(), free_port()
        command = (sys.executable, HERE / "stream_container.py", container)
        stack.enter_context(process(*command, core=LOAD_CORE))
        command = (sys.executable, HERE / "bare_gateway.py", port, container)
        gateway = stack.enter_context(process(*command, core=SUBJECT_CORE))
        wait_for(container)
        wait_for(port)
        figures = uvloop.run(measure_streams(container, port, gateway.pid, effort))
    return [
        Table(
            name="streams",
            title="Response streams through one gateway core",
            setup="Parts of 50 bytes; the gateway on one core, container and client on another; "
            f"{effort.rounds} rounds. The first part: the median of {CALLS} calls less that of as many calls of the "
            "container itself between them.",
            figures={name: {"moorage": values} for name, values in figures.items()},
        )
    ]


async def measure_streams(container: int, port: int, pid: int, effort: Effort) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"first part after the container's own, ms": [], "parts/s": []}
    for _ in range(effort.rounds):
        ours, theirs = [], []
        for _ in range(CALLS):
            theirs.append(await first_byte(direct(container, 1, 50)))
            ours.append(await first_byte(signed(port, 1, 50)))
        first, own = statistics.median(ours), statistics.median(theirs)
        figures["first part after the container's own, ms"].append((first - own) * 1000)
        started = time.perf_counter()
        count = await read_parts(signed(port, PARTS, 50))
        figures["parts/s"].append(count / (time.perf_counter() - started))
    missing, kib = await many(port, pid, 2 * effort.seconds)
    called = f"{STREAMS:,} streams with a part a second for {2 * effort.seconds} s"
    return figures | {f"{called}: parts missing": [missing], "memory of an idle stream, KiB": [kib]}


async def many(port: int, pid: int, seconds: int) -> tuple[float, float]:
    """How many parts did not arrive, and the memory a stream took halfway."""
    before = resident_mib(pid)
    at_half = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds / 2, lambda: at_half.set_result(resident_mib(pid)))
    parts = await asyncio.gather(*(read_parts(signed(port, seconds, 50, 1.0)) for _ in range(STREAMS)))
    return STREAMS * seconds - sum(parts), (await at_half - before) * 1024 / STREAMS


def order(parts: int, size: int, seconds: float) -> bytes:
    return json.dumps({"parts": parts, "bytes": size, "seconds": seconds}).encode()


def direct(port: int, parts: int, size: int) -> tuple[int, bytes]:
    body = order(parts, size, 0)
    return port, b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def signed(port: int, parts: int, size: int, seconds: float = 0) -> tuple[int, bytes]:
    return port, signed_request(port, PATH, order(parts, size, seconds).decode(), headers={})


async def first_byte(call: tuple[int, bytes]) -> float:
    """Seconds from the request to the first byte of the reply's body."""
    port, raw = call
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(raw)
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(1)
    seconds = time.perf_counter() - started
    writer.close()
    return seconds


async def read_parts(call: tuple[int, bytes]) -> int:
    """Read a whole stream; how many parts it had."""
    port, raw = call
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n", 1)[0], head
    decoder, parts = Decoder(), 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = await reader.readexactly(size + 2)
        parts += len(decoder.feed(data[:-2]))
    writer.close()
    return parts


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
