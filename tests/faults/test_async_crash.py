"""Nothing accepted is lost or ends twice: asynchronous invocations under load while `kill -9` strikes at random.

`MOORAGE_CRASH_SECONDS` sets how long (120 for the long form: 5,000 invocations), `MOORAGE_CRASH_SEED` repeats a run's
choices.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from moorage.async_inference.base import Record, Status
from moorage.async_inference.sql import SqlQueue
from moorage.storage.database import open_database
from tests.servers import ACCOUNT, MoorageServer, eventually

NewServer = Callable[..., MoorageServer]

SECONDS = float(os.environ.get("MOORAGE_CRASH_SECONDS", "20"))
SEED = int(os.environ.get("MOORAGE_CRASH_SEED", str(random.randrange(10**6))))
INVOCATIONS = round(5000 * SECONDS / 120)
CLIENTS = 8
INSTANCES = 2
VICTIMS = ("gateway_process", "controller_process", "modelhost", "all")

MODEL = {
    "code/inference.py": """
import os

def model_fn(model_dir):
    return os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def transform_fn(runs, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    os.write(runs, (text + "\\n").encode())
    if text.endswith("0"):
        raise ValueError("this one fails: " + text)
    return "done " + text, "text/plain"
"""
}


class Load:
    """Clients that invoke until enough is accepted; what they could not get accepted, they ask for anew."""

    def __init__(self, server: MoorageServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))
        self.accepted: dict[str, tuple[str, str]] = {}
        self.refused = 0

    def run(self) -> None:
        runtime = self._server.client(
            "sagemaker-runtime", retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20
        )
        while True:
            with self._lock:
                if len(self.accepted) >= INVOCATIONS:
                    return
                name = f"n{next(self._numbers)}"
            started = time.monotonic()
            try:
                reply = runtime.invoke_endpoint_async(
                    EndpointName="crash", Body=name.encode(), ContentType="text/plain", InferenceId=name
                )
            except (ClientError, BotoCoreError):
                self.refused += 1
            else:
                with self._lock:
                    self.accepted[name] = reply["OutputLocation"], reply["FailureLocation"]
            pace = CLIENTS * SECONDS / INVOCATIONS
            time.sleep(max(0.0, pace - (time.monotonic() - started)))


def strike(server: MoorageServer, chance: random.Random) -> str:
    victim = chance.choice(VICTIMS)
    if victim == "all":
        server.kill()
        server.start()
        return victim
    pids = [pid for pid, command in server.processes().items() if victim in command]
    if pids:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)
    return victim


def test_every_accepted_invocation_ends_exactly_once(new_server: NewServer, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    runs = tmp_path / "runs"
    server = new_server(async_max_deaths=100)
    server.client("s3").create_bucket(Bucket="results")
    server.deploy(
        "crash",
        MODEL,
        environment={"RUNS": str(runs)},
        instances=INSTANCES,
        config={
            "AsyncInferenceConfig": {
                "OutputConfig": {"S3OutputPath": "s3://results/out", "S3FailurePath": "s3://results/failed"},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
            }
        },
    )
    load = Load(server)
    struck: Counter[str] = Counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        working = [clients.submit(load.run) for _ in range(CLIENTS)]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.5, 3.0))
            struck[strike(server, chance)] += 1
        for each in working:
            each.result()
    eventually(lambda: not backlog(server), timeout=240, what=lambda: f"unfinished: {backlog(server)}")
    server.stop()

    records = asyncio.run(all_records(server))
    executions = Counter(runs.read_text().split())
    twice = sum(1 for count in executions.values() if count > 1)
    statuses = Counter(str(record.status) for record in records)
    print(
        f"\nseed {SEED}: {len(load.accepted)} accepted, {load.refused} not accepted; killed: {dict(struck)}; "
        f"ended: {dict(statuses)}; {twice} ran more than once ({sum(executions.values())} runs of {len(executions)})"
    )
    by_name = {record.invocation.inference_id: record for record in records}
    problems = [
        problem
        for name, locations in load.accepted.items()
        if (problem := wrong(server, name, by_name.get(name), locations)) is not None
    ]
    assert not problems, problems[:10]
    assert all(record.finished_time is not None for record in records), (
        "also those whose acceptance was not heard of"
    )
    assert len(by_name) == len(records)


def wrong(server: MoorageServer, name: str, record: Record | None, locations: tuple[str, str]) -> str | None:
    """What is not as it must be of an accepted invocation; None if all is well."""
    if record is None:
        return f"{name} is not known"
    output, failure = (server.data_dir / "s3" / location.removeprefix("s3://") for location in locations)
    # A worker of the model host that is killed is an answer of its container: 500, and that is final.
    worker_killed = "was killed by SIGKILL" in (record.reason or "")
    expected = Status.FAILED if name.endswith("0") or worker_killed else Status.COMPLETED
    if record.status is not expected:
        return f"{name} is {record.status}: {record.reason}"
    if expected is Status.COMPLETED:
        if failure.exists():
            return f"{name} has a failure object"
        return (
            None
            if output.exists() and output.read_text() == f"done {name}"
            else f"{name}: its output is wrong"
        )
    if output.exists():
        return f"{name} has an output object"
    told = failure.read_text() if failure.exists() else ""
    return None if told == record.reason else f"{name}: its failure object is wrong"


def backlog(server: MoorageServer) -> Any:
    return asyncio.run(unfinished(server))


async def unfinished(server: MoorageServer) -> Sequence[tuple[str, str]]:
    database = await open_database(f"sqlite+aiosqlite:///{server.data_dir / 'moorage.db'}")
    try:
        return await SqlQueue(database).backlogged()
    finally:
        await database.close()


async def all_records(server: MoorageServer) -> Sequence[Record]:
    database = await open_database(f"sqlite+aiosqlite:///{server.data_dir / 'moorage.db'}")
    try:
        return [record for _, record in await SqlQueue(database).records(ACCOUNT, most=10**6)]
    finally:
        await database.close()
