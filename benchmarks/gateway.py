"""Throughput and latency of authenticated InvokeEndpoint through one gateway core, beside nginx as a plain proxy.

Usage: python benchmarks/gateway.py [--rounds 5] [--seconds 4] [--connections 32]

Each contender runs alone on core 0; the echo container and the load generator (wrk) share core 1, for every contender
alike. The contenders take turns within each round, so that the machine's mood meets them equally; the figures are
medians over the rounds, and the ratios those of the medians. The gateway verifies SigV4 on every request; nginx
verifies nothing.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.server import GatewayServer
from moorage.routing.table import route_document
from moorage.runtime.gateway_process import spare_the_collector

HERE = Path(__file__).parent
BODY = json.dumps({"instances": [[round(0.1 * i, 1) for i in range(28)]], "id": "measured"})
KEY = AccessKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key="not-a-secret",
    account_id="000000000000",
    principal_arn="arn:aws:iam::000000000000:root",
    user_id="000000000000",
)


@dataclass(frozen=True)
class Figures:
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--serve", nargs=2, type=int, metavar=("PORT", "ECHO_PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve_gateway(*arguments.serve))
        return 0
    missing = [tool for tool in ("wrk", "nginx", "taskset") if not find(tool)]
    if missing:
        print(
            f"not on this machine: {', '.join(missing)} (Debian: apt-get install wrk nginx-light)",
            file=sys.stderr,
        )
        return 2
    with ExitStack() as stack:
        echo_port = free_port()
        stack.enter_context(process(1, sys.executable, HERE / "echo_container.py", echo_port))
        ports = {"direct": echo_port, "nginx": free_port(), "moorage": free_port()}
        stack.enter_context(nginx(ports["nginx"], echo_port))
        stack.enter_context(process(0, sys.executable, __file__, "--serve", ports["moorage"], echo_port))
        for port in ports.values():
            wait_for(port)
        check_answers(ports)
        many = measure_all(ports, arguments.rounds, arguments.seconds, arguments.connections)
        one = measure_all(ports, arguments.rounds, arguments.seconds, 1)
    if arguments.json:
        print(
            json.dumps(
                {"many": {k: vars(v) for k, v in many.items()}, "one": {k: vars(v) for k, v in one.items()}}
            )
        )
    else:
        show(f"{arguments.connections} connections", many)
        show("1 connection", one)
    return 0


def measure_all(ports: dict[str, int], rounds: int, seconds: int, connections: int) -> dict[str, Figures]:
    runs: dict[str, list[Figures]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            runs[name].append(measure(port, seconds, connections))
    return {
        name: Figures(
            *(statistics.median(getattr(run, field) for run in figures) for field in vars(figures[0]))
        )
        for name, figures in runs.items()
    }


def measure(port: int, seconds: int, connections: int) -> Figures:
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in signed_headers(port).items()]
    script = "\n".join(['wrk.method = "POST"', f"wrk.body = [==[{BODY}]==]", *lines])
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        url = f"http://127.0.0.1:{port}/endpoints/echo/invocations"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        out = subprocess.run(
            [*command, "-s", file.name, url], capture_output=True, text=True, check=True
        ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"the run had errors, so its figures count for nothing:\n{out}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p50, p99 = (re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out) for percent in (50, 99))
    assert rate and p50 and p99, out
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return Figures(float(rate[1]), float(p50[1]) * scale[p50[2]], float(p99[1]) * scale[p99[2]])


def signed_headers(port: int) -> dict[str, str]:
    """A signature is good for five minutes, so one serves a whole run and is verified each time."""
    url = f"http://127.0.0.1:{port}/endpoints/echo/invocations"
    request = AWSRequest("POST", url, headers={"Content-Type": "application/json"}, data=BODY)
    credentials = Credentials(KEY.access_key_id, KEY.secret_access_key)
    SigV4Auth(credentials, "sagemaker", "us-east-1").add_auth(request)
    return dict(request.headers.items())


async def serve_gateway(port: int, echo_port: int, *, settings: Settings | None = None) -> None:
    """All clients of a benchmark have one address, and there is one instance, so by default neither limits them."""
    settings = settings or Settings(max_connections_per_client=0, max_concurrent_invocations_per_instance=0)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    verifier = Verifier({KEY.access_key_id: KEY})
    server = GatewayServer(settings=settings, verifier=verifier, access=Access(KEY), listener=listener)
    instance = {"instance_id": "i-0", "host": "127.0.0.1", "port": echo_port, "generation": 1}
    variant = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": [instance]}
    server.table.reset(
        [route_document(account_id=KEY.account_id, name="echo", region="us-east-1", variants=[variant])]
    )
    async with server.running(with_feed=False):
        spare_the_collector()
        await asyncio.Event().wait()


@contextmanager
def nginx(port: int, echo_port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
                fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
                keepalive_requests 100000000;
                upstream echo {{ server 127.0.0.1:{echo_port}; keepalive 256; keepalive_requests 100000000; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                }}
            }}
            """
        )
        with process(0, find("nginx"), "-e", f"{folder}/error.log", "-c", config):
            yield


@contextmanager
def process(core: int, *argv: object) -> Iterator[None]:
    child = subprocess.Popen(["taskset", "-c", str(core), *map(str, argv)])
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(10)


def check_answers(ports: dict[str, int]) -> None:
    """A fast wrong answer is no figure: every contender must echo the body."""
    for name, port in ports.items():
        url = f"http://127.0.0.1:{port}/endpoints/echo/invocations"
        request = urllib.request.Request(url, BODY.encode(), signed_headers(port))
        with urllib.request.urlopen(request) as reply:
            assert reply.read() == BODY.encode(), f"{name} answered wrongly"


def find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    end = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def show(title: str, figures: dict[str, Figures]) -> None:
    base = figures["nginx"].requests_per_second
    print(f"\n{title}, body {len(BODY)} bytes, medians\n")
    print(f"{'':10} {'requests/s':>12} {'x nginx':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for name, row in figures.items():
        ratio = row.requests_per_second / base
        print(f"{name:10} {row.requests_per_second:12,.0f} {ratio:8.2f} {row.p50_ms:8.3f} {row.p99_ms:8.3f}")


if __name__ == "__main__":
    sys.exit(main())
