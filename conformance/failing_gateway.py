"""One more gateway of a running server, which fails on demand: for errors that a healthy server never shows.

It is the gateway as it is, with signatures, routes and containers, except that its routing table raises when told to.
So every byte of an error comes from where it would come from in earnest. It also counts connections.

Usage: python -m conformance.failing_gateway DATA_DIR

Prints two URLs: of the gateway, and of its control. `POST <control>/fail?error=ServiceUnavailable&times=2` makes the
next two invocations fail with that error and counts attempts from zero; `GET <control>/counts` answers
`{"attempts": …, "connections": …}`, all connections since the start.
"""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moorage.auth.access import Access
from moorage.auth.credentials import read_root_key
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.errors import (
    InternalDependencyException,
    ModelNotReadyException,
    ServiceUnavailable,
)
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.routing.table import EndpointRoute, Instance, RoutingTable
from moorage.storage.s3_accounts import S3Accounts

IN_STREAM = "InternalStreamFailure"
_ERRORS: dict[str, Callable[[], Exception]] = {
    "ServiceUnavailable": lambda: ServiceUnavailable("unavailable on demand"),
    "ModelNotReadyException": lambda: ModelNotReadyException("not ready on demand"),
    "InternalDependencyException": lambda: InternalDependencyException("no dependency on demand"),
    # Whatever is raised without being one of AWS's errors is answered as this.
    "InternalFailure": lambda: ZeroDivisionError("a bug on demand"),
    IN_STREAM: lambda: ZeroDivisionError("a bug on demand, at the end of a stream"),
}


@dataclass
class Demand:
    """What is to fail next. Set by the control's thread, consumed by the gateway's."""

    error: str = ""
    times: int = 0
    attempts: int = 0
    connections: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, error: str, times: int) -> None:
        with self._lock:
            self.error, self.times, self.attempts = error, times, 0

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def attempt(self) -> None:
        """An invocation looks its endpoint up."""
        with self._lock:
            self.attempts += 1
        self._raise(in_stream=False)

    def replied(self) -> None:
        """An invocation has its whole reply."""
        self._raise(in_stream=True)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {"attempts": self.attempts, "connections": self.connections}

    def _raise(self, *, in_stream: bool) -> None:
        with self._lock:
            if not self.times or (self.error == IN_STREAM) is not in_stream:
                return
            self.times -= 1
        raise _ERRORS[self.error]()


class FailingTable(RoutingTable):
    """A routing table that raises on demand."""

    def __init__(self, demand: Demand, on_drained: Callable[[str], None]) -> None:
        super().__init__(on_drained=on_drained)
        self._demand = demand

    def find(self, account_id: str, endpoint_name: str) -> EndpointRoute | None:
        self._demand.attempt()
        return super().find(account_id, endpoint_name)

    def release(self, instance: Instance) -> None:
        super().release(instance)
        self._demand.replied()


class FailingGateway(GatewayServer):
    """A gateway with such a table."""

    def __init__(self, demand: Demand, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.table = FailingTable(demand, self._report_drained)


class CountingListener(socket.socket):
    """A listening socket that counts what it accepts."""

    def __init__(self, demand: Demand) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._demand = demand
        self.bind(("127.0.0.1", 0))
        self.listen()

    def accept(self) -> tuple[socket.socket, Any]:
        accepted = super().accept()
        self._demand.connected()
        return accepted


def control(demand: Demand) -> ThreadingHTTPServer:
    """The control's HTTP server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, demand.counts())

        def do_POST(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            error, times = query.get("error", [""])[0], query.get("times", ["0"])[0]
            if error not in _ERRORS or not times.isdigit():
                self._answer(400, {"error": f"one of {', '.join(_ERRORS)}", "times": "a number"})
                return
            demand.order(error, int(times))
            self._answer(200, demand.counts())

        def log_message(self, format: str, *args: Any) -> None:
            """Its callers know what they asked for."""

        def _answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


async def serve(data_dir: Path) -> None:
    """Serve until stdin ends: whoever started this has gone then."""
    settings = Settings(data_dir=data_dir, allow_unsigned_payload=True)
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    access = Access(key)
    demand = Demand()
    listener = CountingListener(demand)
    gateway = FailingGateway(
        demand,
        settings=settings,
        verifier=Verifier(access.credentials, allow_unsigned_payload=True),
        access=access,
        s3_signer=S3Signer(S3Accounts.new()),  # of another key than the server's: it relays nothing to the S3
        listener=listener,
    )
    controls = control(demand)
    threading.Thread(target=controls.serve_forever, name="control", daemon=True).start()
    async with gateway.running():
        for port in (listener.getsockname()[1], controls.server_port):
            print(f"http://127.0.0.1:{port}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    controls.shutdown()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
