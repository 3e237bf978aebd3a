"""Response streams through one gateway core: time to the first part, parts a second, memory of an idle stream.

Usage: python benchmarks/streaming.py [--rounds 5] [--streams 2000] [--seconds 10]

The gateway has core 0 for itself; the streaming container and the client share core 1. Time to the first part is
that of the gateway less that of the container asked directly, medians of alternating calls. Then `--streams` streams
with a part a second run side by side for `--seconds`, every part is counted, and the gateway's memory is compared.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway import KEY, free_port, process, wait_for
from moorage.wire.eventstream import Decoder

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        container, gateway = free_port(), free_port()
        stack.enter_context(process(1, sys.executable, HERE / "stream_container.py", container))
        stack.enter_context(process(0, sys.executable, HERE / "gateway.py", "--serve", gateway, container))
        wait_for(container)
        wait_for(gateway)
        uvloop.run(measure(container, gateway, arguments))
    return 0


async def measure(container: int, gateway: int, arguments: argparse.Namespace) -> None:
    ours, theirs = [], []
    for _ in range(200):
        theirs.append(await first_byte(direct(container, 1, 50)))
        ours.append(await first_byte(signed(gateway, 1, 50)))
    own, through = statistics.median(theirs) * 1000, statistics.median(ours) * 1000
    print(
        f"first part after the container's own: {through - own:.3f} ms (medians of 200; direct {own:.3f} ms)"
    )
    rates = []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        count = await read_parts(signed(gateway, 200_000, 50))
        rates.append(count / (time.perf_counter() - started))
    print(
        f"parts of 50 bytes through one core: {statistics.median(rates):,.0f} /s (median of {arguments.rounds})"
    )
    await many(gateway, arguments.streams, arguments.seconds)


async def many(gateway: int, streams: int, seconds: int) -> None:
    pid = serving(gateway)
    before = resident_kib(pid)
    at_half = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds / 2, lambda: at_half.set_result(resident_kib(pid)))
    parts = await asyncio.gather(*(read_parts(signed(gateway, seconds, 50, 1.0)) for _ in range(streams)))
    missing = streams * seconds - sum(parts)
    print(f"{streams} streams with a part a second for {seconds} s: {sum(parts):,} parts, {missing} missing")
    print(f"memory of an idle stream: {(await at_half - before) / streams:.1f} KiB")


def order(parts: int, size: int, seconds: float) -> bytes:
    return json.dumps({"parts": parts, "bytes": size, "seconds": seconds}).encode()


def direct(port: int, parts: int, size: int) -> tuple[int, bytes]:
    body = order(parts, size, 0)
    return port, b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def signed(port: int, parts: int, size: int, seconds: float = 0) -> tuple[int, bytes]:
    path, body = "/endpoints/echo/invocations-response-stream", order(parts, size, seconds)
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", data=body)
    SigV4Auth(Credentials(KEY.access_key_id, KEY.secret_access_key), "sagemaker", "us-east-1").add_auth(
        request
    )
    lines = {"Host": f"127.0.0.1:{port}", "Content-Length": len(body), **dict(request.headers.items())}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return port, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


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


def serving(port: int) -> int:
    """The pid of the gateway."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"--serve" in command and str(port).encode() in command and b"taskset" not in command:
            return int(path.parent.name)
    raise LookupError("the gateway is gone")


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    sys.exit(main())
