"""The load: clients that retry as SDKs do, and compare every answer with what its own request must be answered.

An invocation that was inside a killed process may end in an error; a wrong answer, a stream that ends as if it were
whole, or an error that blames the caller (its key, its request, its endpoint's name) is a problem.
"""

import itertools
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError, ReadTimeoutError

from tests.faults.storm import model
from tests.servers import ACCOUNT, MoorageServer

SYNC, ASYNC, CHURN = "storm", "storm-async", "churn"
_PAUSE_SECONDS = 0.03
_READ_TIMEOUT_SECONDS = 30
_CHURN_SECONDS = 60.0
_OF_THE_SERVER = (424, 429)
"""ModelError, and ModelNotReadyException: no instance is there just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An asynchronous invocation that was answered with 202."""

    text: str
    output: str
    failure: str


@dataclass(slots=True)
class Seen:
    """What the clients have seen. `problems` is to be empty at the end."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    timeouts: list[str] = field(default_factory=list)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    """By name, which is the InferenceId, too."""
    results: dict[str, bytes] = field(default_factory=dict)
    """By location: the objects of finished invocations as they were when these had just finished."""


class Load:
    """Clients in threads of their own, until `stop`."""

    def __init__(self, server: MoorageServer, seed: int) -> None:
        self.seen = Seen()
        self._server = server
        self._seed = seed
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._s3 = self.client("s3")

    def start(self) -> None:
        kinds: list[Callable[[random.Random, Any], None]] = [
            *(self._invoke, self._invoke, self._stream, self._stream),
            *(self._invoke_async, self._invoke_async),
        ]
        for number, kind in enumerate(kinds):
            self._begin(lambda kind=kind, number=number: self._repeat(kind, number))  # type: ignore[misc]
        self._begin(self._describe)
        self._begin(self._churn)
        self._begin(self._watch_results)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def client(self, service: str, attempts: int = 4) -> Any:
        return self._server.client(
            service,
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=3,
            read_timeout=_READ_TIMEOUT_SECONDS,
        )

    def _begin(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.seen.problems.append(f"a client failed: {type(error).__name__}: {error}")

        thread = threading.Thread(target=guarded)
        thread.start()
        self._threads.append(thread)

    def _repeat(self, kind: Callable[[random.Random, Any], None], number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        runtime = self.client("sagemaker-runtime")
        while not self._over.wait(_PAUSE_SECONDS):
            kind(chance, runtime)

    def _text(self, kind: str, chance: random.Random) -> str:
        length = chance.choice((10, 1000, 20_000, 100_000) if kind != "stream" else (10, 1000))
        payload = f"{chance.getrandbits(64):016x}" * (length // 16 + 1)
        return f"{kind}:n{next(self._numbers)}:{payload}"

    # --- one invocation each --------------------------------------------------------------------------

    def _invoke(self, chance: random.Random, runtime: Any) -> None:
        text = self._text("sync", chance)
        try:
            reply = runtime.invoke_endpoint(EndpointName=SYNC, Body=text, ContentType="text/plain")
            body = reply["Body"].read().decode()
        except (ClientError, BotoCoreError, urllib3.exceptions.HTTPError) as error:
            self._failed("sync", error)
            return
        self.seen.counts["sync answered"] += 1
        if body.rpartition(" ")[0] != model.answer(text):
            self.seen.problems.append(f"{text[:40]}: wrong answer {body[:200]!r} of {len(body)} characters")

    def _stream(self, chance: random.Random, runtime: Any) -> None:
        text = self._text("stream", chance)
        expected = "".join(model.parts(text)).encode()
        received = b""
        try:
            reply = runtime.invoke_endpoint_with_response_stream(
                EndpointName=SYNC, Body=text, ContentType="text/plain"
            )
            for event in reply["Body"]:
                received += event["PayloadPart"]["Bytes"]
        except (ClientError, BotoCoreError, EventStreamError, urllib3.exceptions.HTTPError) as error:
            self._failed("stream", error)
            if not expected.startswith(received):
                self.seen.problems.append(f"{text[:40]}: wrong parts before an error: {received[:300]!r}")
            return
        self.seen.counts["streams whole"] += 1
        if received != expected:
            self.seen.problems.append(
                f"{text[:40]}: a stream of {len(expected)} bytes ended without an error after {len(received)}"
            )

    def _invoke_async(self, chance: random.Random, runtime: Any) -> None:
        kind = chance.choices(("async", "slow", "fails"), (80, 10, 10))[0]
        text = self._text(kind, chance)
        name = text.split(":", 2)[1]
        members: dict[str, Any] = {"Body": text.encode()}
        try:
            if chance.random() < 0.3:
                self._s3.put_object(Bucket="inputs", Key=name, Body=text.encode())
                members = {"InputLocation": f"s3://inputs/{name}"}
            reply = runtime.invoke_endpoint_async(
                EndpointName=ASYNC, ContentType="text/plain", InferenceId=name, **members
            )
        except (ClientError, BotoCoreError, urllib3.exceptions.HTTPError) as error:
            self._failed("async", error)
            return
        self.seen.counts["async accepted"] += 1
        self.seen.accepted[name] = Accepted(
            text=text, output=reply["OutputLocation"], failure=reply["FailureLocation"]
        )
        if reply.get("InferenceId") != name:
            self.seen.problems.append(f"{name} was accepted as {reply}")

    def _failed(self, what: str, error: Exception) -> None:
        if isinstance(error, EventStreamError):
            code = "event " + str(error).partition("(")[2].partition(")")[0]
        elif isinstance(error, ClientError):
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = f"{status} {error.response['Error']['Code']}"
            is_busy = what == "churn" and "in-progress" in str(error)  # it is being restored
            if status < 500 and status not in _OF_THE_SERVER and not is_busy:
                self.seen.problems.append(f"{what}: {error}")
        else:
            code = type(error).__name__
        self.seen.counts[f"{what} failed: {code}"] += 1
        if isinstance(error, ReadTimeoutError):
            self.seen.timeouts.append(f"{time.strftime('%H:%M:%S')} {what} after {_READ_TIMEOUT_SECONDS} s")

    # --- the control plane ----------------------------------------------------------------------------

    def _describe(self) -> None:
        sagemaker = self.client("sagemaker", attempts=1)
        while not self._over.wait(0.5):
            for name in (SYNC, ASYNC):
                try:
                    status = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
                except (ClientError, BotoCoreError) as error:
                    self._failed("describe", error)
                    continue
                self.seen.counts["described"] += 1
                if status not in ("InService", "SystemUpdating"):  # the second while it is restored
                    self.seen.problems.append(f"the endpoint {name} is {status}")

    def _churn(self) -> None:
        """Endpoints that come and go, one after the other."""
        for number in itertools.count():
            if self._over.wait(1.0):
                return
            self._come_and_go(f"{CHURN}-{number}")

    def _come_and_go(self, name: str) -> None:
        sagemaker = self.client("sagemaker")
        self._until(lambda: _created(sagemaker, name), f"create {name}")
        description: dict[str, Any] = {}

        def is_settled() -> bool:
            description.update(sagemaker.describe_endpoint(EndpointName=name))
            return description["EndpointStatus"] in ("InService", "Failed")

        self._until(is_settled, f"{name} in service")
        status = description.get("EndpointStatus")
        self.seen.counts[f"churned: {status}"] += 1
        if status == "Failed":  # its container was killed before it had ever answered
            self.seen.counts[f"churned: {description['FailureReason'][:160]}"] += 1
        self._until(lambda: _is_gone(sagemaker, name), f"delete {name}")

    def _until(self, step: Callable[[], bool], what: str) -> None:
        """Try it until it is so: refusals of a server that is away, or not ready, are tried again."""
        for _ in range(round(_CHURN_SECONDS / 0.2)):
            try:
                if step():
                    return
            except (ClientError, BotoCoreError) as error:
                self._failed("churn", error)
            time.sleep(0.2)
        self.seen.problems.append(f"{what}: not within {_CHURN_SECONDS:g} seconds")

    # --- results --------------------------------------------------------------------------------------

    def _watch_results(self) -> None:
        """Read each result as soon as its invocation has finished: it must still be the same at the end."""
        known: set[int] = set()
        while not self._over.wait(1.0):
            for sequence, output, failure in finished_rows(self._server):
                if sequence not in known:
                    known.add(sequence)
                    for location in (output, failure):
                        content = object_at(self._server, location)
                        if content is not None:
                            self.seen.results[location] = content


def _created(sagemaker: Any, name: str) -> bool:
    try:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=SYNC)
    except ClientError as error:
        if "already existing" not in str(error):  # by the attempt before, whose answer was lost
            raise
    return True


def _is_gone(sagemaker: Any, name: str) -> bool:
    try:
        if sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Deleting":
            sagemaker.delete_endpoint(EndpointName=name)
    except ClientError as error:
        if "Could not find" not in str(error):
            raise
        return True
    return False


def finished_rows(server: MoorageServer) -> list[tuple[int, str, str]]:
    """Sequence number and locations of all that have finished."""
    url = f"file:{quote(str(server.data_dir / 'moorage.db'))}?mode=ro"
    query = (
        "SELECT sequence, json_extract(request, '$.output_location'), "
        "json_extract(request, '$.failure_location') FROM async_invocations WHERE status IS NOT NULL"
    )
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(url, uri=True, timeout=5)) as database:
        return database.execute(query).fetchall()
    return []


def object_at(server: MoorageServer, location: str) -> bytes | None:
    """Read where the embedded S3 keeps it, so that an S3 that is away does not matter."""
    path = server.data_dir / "s3" / unquote(location.removeprefix("s3://"))
    return path.read_bytes() if path.exists() else None


__all__ = ["ACCOUNT", "ASYNC", "SYNC", "Accepted", "Load", "Seen", "finished_rows", "object_at"]
