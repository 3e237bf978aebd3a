"""Asynchronous inference: accepting, claiming, picking up, draining, and the memory that large payloads take.

Usage: python benchmarks/async_queue.py [--database-url URL] [--queued 1000000] [--seconds 5] [--gigabytes 1]

Everything but the claims runs through `moorage serve` as users run it: gateway, controller, embedded S3 and the
container on the cores there are, the load generator (`wrk`) beside them. Without `--database-url` the queue is in
SQLite; with `postgresql+asyncpg://…` the database should be an empty one.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from sqlalchemy import insert

from gateway import find
from moorage.async_inference.sql import SqlQueue
from moorage.auth.credentials import AccessKey, read_root_key
from moorage.storage.database import Database, open_database
from moorage.storage.schema import async_invocations

HERE = Path(__file__).parent
ACCOUNT = "000000000000"
BODY = b'{"instances": [[0.1, 0.2, 0.3]]}'
ROLE = f"arn:aws:iam::{ACCOUNT}:role/benchmark"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database-url", default="")
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    arguments = parser.parse_args()
    if find("wrk") is None:
        print("not on this machine: wrk (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        with running(Path(folder), arguments.database_url) as server:
            measure_server(server, Path(folder), arguments)
        url = arguments.database_url or f"sqlite+aiosqlite:///{folder}/claims.db"
        asyncio.run(measure_claims(url, arguments.queued))
    return 0


def measure_server(server: "Server", folder: Path, arguments: argparse.Namespace) -> None:
    gate = folder / "gate"
    server.endpoint("held", limit=16, environment={"GATE": str(gate), "DELAY_SECONDS": "0.001"})
    rates = [put(server, "held", arguments.seconds, arguments.connections) for _ in range(3)]
    print(
        f"durable puts with {arguments.connections} clients: {statistics.median(rates):,.0f} /s "
        f"(median of 3; {', '.join(f'{rate:,.0f}' for rate in rates)})"
    )
    queued = server.unfinished("held")
    gate.touch()
    started = time.perf_counter()
    while left := server.unfinished("held"):
        time.sleep(min(1.0, 0.05 + left / 20_000))
    seconds = time.perf_counter() - started
    print(
        f"drained with a model of 1 ms, 16 at a time: {queued / seconds:,.0f} /s ({queued:,} in {seconds:.1f} s)"
    )

    server.endpoint("clock", limit=16, environment={"REPLY": "time"})
    idle = [server.pick_up("clock") for _ in range(100)]
    show_pick_up("idle", idle)
    server.endpoint("busy", limit=16, environment={"DELAY_SECONDS": "0.001"})
    with load(server, "busy", per_second=200):
        show_pick_up("while another endpoint takes 200/s", [server.pick_up("clock") for _ in range(100)])
    if arguments.gigabytes:
        measure_memory(server, arguments.gigabytes)


def show_pick_up(when: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    print(
        f"from the 202 to the container, {when}: median {statistics.median(ordered) * 1000:.1f} ms, "
        f"p99 {ordered[int(len(ordered) * 0.99) - 1] * 1000:.1f} ms"
    )


def measure_memory(server: "Server", gigabytes: float) -> None:
    server.endpoint("large", limit=1, environment={})
    size = int(gigabytes * 2**30)
    server.client("s3").upload_fileobj(Zeros(size), "results", "large.bin")
    time.sleep(2)
    before = server.resident_mib()
    peak = dict(before)
    started = time.perf_counter()
    reply = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="large", InputLocation="s3://results/large.bin", InvocationTimeoutSeconds=3600
    )
    while not server.has(reply["OutputLocation"]):
        peak = {name: max(most, server.resident_mib().get(name, 0)) for name, most in peak.items()}
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    growth = ", ".join(f"{name} {peak[name] - before[name]:.0f} MiB" for name in sorted(peak))
    print(f"{gigabytes:g} GiB in and out in {seconds:.1f} s; the processes grew by: {growth}")


class Zeros:
    """A file of so many bytes, which takes no memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)


class Server:
    """`moorage serve` with the containers of this benchmark."""

    def __init__(self, url: str, data_dir: Path, pid: int) -> None:
        self.url = url
        self._pid = pid
        self._data_dir = data_dir
        self.key: AccessKey = read_root_key(data_dir / "credentials", account_id=ACCOUNT)
        self.client("s3").create_bucket(Bucket="results")

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key.access_key_id,
            aws_secret_access_key=self.key.secret_access_key,
        )

    def endpoint(self, name: str, *, limit: int, environment: Mapping[str, str]) -> None:
        sagemaker = self.client("sagemaker")
        container = {"Image": "benchmark", "Environment": dict(environment)}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "v",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[variant],
            AsyncInferenceConfig={
                "OutputConfig": {"S3OutputPath": f"s3://results/{name}"},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": limit},
            },
        )
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        while (status := sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) != "InService":
            assert status == "Creating", status
            time.sleep(0.05)

    def unfinished(self, name: str) -> int:
        url = f"{self.url}/_moorage/async/backlogs"
        request = AWSRequest("GET", url)
        SigV4Auth(self._credentials(), "sagemaker", "us-east-1").add_auth(request)

        with urllib.request.urlopen(
            urllib.request.Request(url, headers=dict(request.headers.items()))
        ) as reply:
            backlogs = json.load(reply)["Backlogs"]
        counts = next((each["Counts"] for each in backlogs if each["EndpointName"] == name), {})
        return sum(counts.get(status, 0) for status in ("Queued", "Running"))

    def pick_up(self, name: str) -> float:
        """Seconds from the 202 to the container's first sight of an invocation."""
        reply = self.client("sagemaker-runtime").invoke_endpoint_async(EndpointName=name, Body=BODY)
        accepted = time.time()
        while not self.has(reply["OutputLocation"]):
            time.sleep(0.001)
        return max(0.0, float(self._path(reply["OutputLocation"]).read_text() or accepted) - accepted)

    def has(self, location: str) -> bool:
        return self._path(location).exists()

    def resident_mib(self) -> dict[str, float]:
        """The resident memory of each kind of process of ours."""
        found: dict[str, float] = {}
        for pid in descendants(self._pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            names = {"gateway_process": "gateway", "controller_process": "controller", "rclone": "S3"}
            name = next((name for part, name in names.items() if part in command), None)
            resident = re.search(r"VmRSS:\s+(\d+) kB", status)
            if name and resident:
                found[name] = int(resident[1]) / 1024
        return found

    def signed(self, path: str) -> dict[str, str]:
        headers = {"X-Amzn-SageMaker-Content-Type": "application/json"}
        request = AWSRequest("POST", self.url + path, headers=headers, data=BODY)
        SigV4Auth(self._credentials(), "sagemaker", "us-east-1").add_auth(request)
        return dict(request.headers.items())

    def _credentials(self) -> Credentials:
        return Credentials(self.key.access_key_id, self.key.secret_access_key)

    def _path(self, location: str) -> Path:
        return self._data_dir / "s3" / location.removeprefix("s3://")


@contextmanager
def running(folder: Path, database_url: str) -> Iterator[Server]:
    data_dir = folder / "data"
    settings = folder / "moorage.toml"
    settings.write_text(f"[images]\nbenchmark = '{sys.executable} {HERE / 'async_container.py'}'\n")
    command = [sys.executable, "-m", "moorage", "serve", "--port", "0", "--data-dir", str(data_dir)]
    command += ["--config", str(settings), *(["--database-url", database_url] if database_url else [])]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        yield Server(line.split()[-1], data_dir, child.pid)
    finally:
        child.terminate()
        child.wait(90)


def put(server: Server, name: str, seconds: int, connections: int) -> float:
    """Invocations accepted a second."""
    path = f"/endpoints/{name}/async-invocations"
    lines = [f'wrk.headers["{key}"] = "{value}"' for key, value in server.signed(path).items()]
    script = "\n".join(['wrk.method = "POST"', f"wrk.body = [==[{BODY.decode()}]==]", *lines])
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", file.name, server.url + path]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"the run had errors, so its figures count for nothing:\n{out}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate, out
    return float(rate[1])


@contextmanager
def load(server: Server, name: str, *, per_second: int) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        runtime = server.client("sagemaker-runtime")
        while not stop.wait(4 / per_second):
            runtime.invoke_endpoint_async(EndpointName=name, Body=BODY)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def measure_claims(url: str, queued: int) -> None:
    database = await open_database(url)
    try:
        queue = SqlQueue(database)
        await fill(database, queued)
        for most in (1, 16):
            times = []
            for _ in range(200):
                started = time.perf_counter()
                claims = await queue.claim(ACCOUNT, "deep", most=most, lease_seconds=3600)
                times.append(time.perf_counter() - started)
                assert len(claims) == most
            times.sort()
            print(
                f"claim of {most} with {queued:,} queued: median {statistics.median(times) * 1000:.2f} ms, "
                f"p99 {times[197] * 1000:.2f} ms"
            )
    finally:
        await database.close()


async def fill(database: Database, queued: int) -> None:
    now = datetime.now(UTC) - timedelta(hours=1)
    for first in range(0, queued, 10_000):
        rows = [
            row(now + timedelta(microseconds=number)) for number in range(first, min(first + 10_000, queued))
        ]
        async with database.write() as connection:
            await connection.execute(insert(async_invocations), rows)


def row(received: datetime) -> dict[str, Any]:
    id = str(uuid.uuid4())
    return {
        "invocation_id": id,
        "account_id": ACCOUNT,
        "endpoint_name": "deep",
        "inference_id": id,
        "received_time": received,
        "expires_time": received + timedelta(hours=6),
        "request": {"timeout_seconds": 900, "output_location": f"s3://results/deep/{id}.out"},
        "body": BODY,
        "claim_after": received,
        "attempts": 0,
        "deaths": 0,
    }


def descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


if __name__ == "__main__":
    sys.exit(main())
