"""The embedded S3 through the gateway, beside the same program alone, without a gateway.

Usage: python benchmarks/s3.py [--rounds 5] [--megabytes 60] [--requests 1000] [--keys 1000]

Everything runs on the cores that there are, as in a real installation: the server with its processes, and this
client, which has signed each request before it is timed. Bodies are signed with their SHA-256, which the gateway
verifies; the program alone verifies it as well. Large: one body of so many megabytes up, and down again. Small: one
connection that puts and gets 1 KB, one request after another. List: a page of so many keys. Figures are medians over
the rounds; the two contenders take turns.

The exit status is 1 if 60 MB take longer than 0.8 s up or 0.4 s down through the gateway.
"""

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from harness import process, take_turns
from moorage.storage.s3_accounts import KEY_VARIABLE, REGION, S3Accounts
from moorage_server import ACCOUNT, moorage_serve

MB = 1_000_000
UP_SECONDS, DOWN_SECONDS = 0.8, 0.4
BUCKET = "benchmark"
GATEWAY, ALONE = "through the gateway", "alone"


@dataclass(frozen=True)
class Contender:
    """An S3 that is called, and the key that calls it."""

    connect: Callable[[], socket.socket]
    host: str
    credentials: Credentials

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        """The head of a request, signed."""
        digest = hashlib.sha256(body).hexdigest()
        request = AWSRequest(method, f"http://{self.host}{target}", data=body)
        request.headers["X-Amz-Content-SHA256"] = digest
        S3SigV4Auth(self.credentials, "s3", REGION).add_auth(request)
        lines = {"Host": self.host, "Content-Length": str(len(body)), **dict(request.headers.items())}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode()


class Connection:
    """Sends what was signed before, and reads the reply."""

    def __init__(self, contender: Contender) -> None:
        self._socket = contender.connect()
        self._buffer = bytearray(MB)

    def call(self, head: bytes, body: bytes = b"") -> int:
        """The length of the reply's body. Raises `SystemExit` if it is no success."""
        self._socket.sendall(head)
        self._socket.sendall(body)
        reply = b""
        while b"\r\n\r\n" not in reply:
            received = self._socket.recv(65536)
            assert received, "the connection was closed"
            reply += received
        first, _, rest = reply.partition(b"\r\n\r\n")
        if not first.startswith(b"HTTP/1.1 20"):
            raise SystemExit(reply.decode("latin-1"))
        lines = dict(line.lower().split(b": ", 1) for line in first.split(b"\r\n")[1:])
        length = int(lines.get(b"content-length", b"0"))
        come = len(rest)
        while come < length:
            come += self._socket.recv_into(self._buffer)
        return length


@dataclass(frozen=True)
class Figures:
    """Seconds, but for rates."""

    up: float
    down: float
    put_p50: float
    put_p99: float
    get_p50: float
    get_p99: float
    puts: float
    gets: float
    listed: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--keys", type=int, default=1000)
    arguments = parser.parse_args()
    large = os.urandom(MB) * arguments.megabytes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-s3-")))
        contenders = {
            GATEWAY: stack.enter_context(through_the_gateway(folder / "server")),
            ALONE: stack.enter_context(alone(folder / "alone")),
        }
        for contender in contenders.values():
            connection = Connection(contender)
            connection.call(contender.request("PUT", f"/{BUCKET}"))
            for number in range(arguments.keys):
                connection.call(contender.request("PUT", f"/{BUCKET}/many/{number:06}"))
        found = take_turns(
            list(contenders),
            arguments.rounds,
            lambda name: measure(contenders[name], large, arguments.requests, arguments.keys),
            warm_up=True,
        )
    load = os.getloadavg()[0]
    print(f"medians of {arguments.rounds} rounds; the machine's load at the end was {load:.1f}\n")
    print(f"{'':<28}{GATEWAY:>20}{ALONE:>10}{'ratio':>8}")
    for label, name, scale in (
        (f"{arguments.megabytes} MB up, s", "up", 1),
        (f"{arguments.megabytes} MB down, s", "down", 1),
        ("put of 1 KB, p50 ms", "put_p50", 1000),
        ("put of 1 KB, p99 ms", "put_p99", 1000),
        ("put of 1 KB, a second", "puts", 1),
        ("get of 1 KB, p50 ms", "get_p50", 1000),
        ("get of 1 KB, p99 ms", "get_p99", 1000),
        ("get of 1 KB, a second", "gets", 1),
        (f"list of {arguments.keys} keys, ms", "listed", 1000),
    ):
        pairs = [
            tuple(scale * getattr(found[who][i], name) for who in contenders) for i in range(arguments.rounds)
        ]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(mine / its for mine, its in pairs)
        print(f"{label:<28}{ours:>20.2f}{theirs:>10.2f}{ratio:>8.2f}")
    up, down = (statistics.median(getattr(each, what) for each in found[GATEWAY]) for what in ("up", "down"))
    return 0 if (up <= UP_SECONDS and down <= DOWN_SECONDS) or arguments.megabytes != 60 else 1


def measure(contender: Contender, large: bytes, requests: int, keys: int) -> Figures:
    connection = Connection(contender)

    def timed(head: bytes, body: bytes = b"", length: int = 0) -> float:
        begun = time.perf_counter()
        received = connection.call(head, body)
        seconds = time.perf_counter() - begun
        assert received >= length
        return seconds

    up = timed(contender.request("PUT", f"/{BUCKET}/large", large), large)
    down = timed(contender.request("GET", f"/{BUCKET}/large"), length=len(large))
    small = os.urandom(1000)
    puts = [contender.request("PUT", f"/{BUCKET}/small/{number}", small) for number in range(requests)]
    put = [timed(head, small) for head in puts]
    gets = [contender.request("GET", f"/{BUCKET}/small/{number}") for number in range(requests)]
    got = [timed(head, length=1000) for head in gets]
    page = contender.request("GET", f"/{BUCKET}?list-type=2&max-keys={keys}&prefix=many%2F")
    listed = statistics.median(timed(page, length=100 * keys) for _ in range(10))
    connection.call(contender.request("DELETE", f"/{BUCKET}/large"))
    return Figures(
        up=up,
        down=down,
        put_p50=statistics.median(put),
        put_p99=_p99(put),
        get_p50=statistics.median(got),
        get_p99=_p99(got),
        puts=requests / sum(put),
        gets=requests / sum(got),
        listed=listed,
    )


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@contextmanager
def through_the_gateway(folder: Path) -> Iterator[Contender]:
    folder.mkdir()
    with moorage_serve(folder) as server:
        address = urlsplit(server.url)
        assert address.hostname is not None
        assert address.port is not None
        place = (address.hostname, address.port)
        credentials = Credentials(server.key.access_key_id, server.key.secret_access_key)

        def connect() -> socket.socket:
            connection = socket.create_connection(place)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as clients do
            return connection

        yield Contender(connect, address.netloc, credentials)


@contextmanager
def alone(folder: Path) -> Iterator[Contender]:
    """`moorage-s3` as the supervisor starts it, and an account that calls it by its socket."""
    folder.mkdir()
    program = shutil.which(
        "moorage-s3", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if program is None:
        raise SystemExit("moorage-s3 is missing: `make .venv/test` builds it")
    accounts = S3Accounts.new()
    path = folder / "socket"
    places = ("--root", folder / "s3", "--versions", folder / "versions", "--sidecar", folder / "metadata")
    command = (program, "--socket", path, *places, "--account", ACCOUNT)

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return connection

    with process(*command, environment={KEY_VARIABLE: accounts.master_hex}, quiet=True):
        while not path.exists():
            time.sleep(0.01)
        yield Contender(connect, "localhost", Credentials(ACCOUNT, accounts.secret_of(ACCOUNT)))


if __name__ == "__main__":
    sys.exit(main())
