"""What an account may read of the metrics, and what is said of queues and instances."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from moorage.async_inference.base import AsyncInvocation, Status
from moorage.async_inference.sql import SqlQueue
from moorage.controller.metrics import Metrics, metrics_routes
from moorage.controller.observations import Observations
from moorage.counts import InvocationCounts
from moorage.launchers.base import InstanceStatus
from moorage.storage.database import open_database
from moorage.storage.memory import MemoryResourceStore

OURS, THEIRS = "000000000000", "111122223333"
INSTANCES = {
    (OURS, "demo", "A", InstanceStatus.IN_SERVICE): 2,
    (OURS, "demo", "A", InstanceStatus.STARTING): 1,
    (THEIRS, "demo", "A", InstanceStatus.STARTING): 1,
}
FINISHED = {(OURS, "demo", Status.FAILED): 3, (OURS, "gone", Status.FAILED): 1}

Samples = dict[tuple[str, ...], float]


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqlQueue]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}")
    yield SqlQueue(database)
    await database.close()


@pytest.fixture
def observations() -> Observations:
    made = Observations()
    for account_id in (OURS, THEIRS):
        made.expect(account_id, "demo", ["A"])
    for number, (account_id, inside) in enumerate(((OURS, 2), (OURS, 3), (THEIRS, 1))):
        process = {
            "name": "gateway",
            "pid": number,
            "cpu_seconds": 1.0,
            "resident_bytes": 1,
            "connections": 7,
        }
        made.take_in(
            number,
            {
                "counts": [
                    [account_id, "demo", "A", {"unanswered": inside, "invocations_per_instance": inside / 2}]
                ],
                "error_replies": {"ValidationError": 1},
                "process": {**process, "in_flight": [[account_id, "demo", "A", inside]]},
            },
        )
    return made


def metrics(observations: Observations, queue: SqlQueue) -> Metrics:
    return Metrics(
        observations=observations,
        store=MemoryResourceStore(),
        queue=queue,
        instances=lambda: INSTANCES,
        finished=lambda: FINISHED,
    )


async def read(metrics: Metrics, account_id: str | None) -> dict[str, Samples]:
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in await metrics.read(account_id)
    }


async def accept(queue: SqlQueue, account_id: str, age_seconds: float = 0.0) -> None:
    now = datetime.now(UTC)
    await queue.put(
        AsyncInvocation(
            invocation_id=f"{account_id}-{age_seconds}",
            account_id=account_id,
            endpoint_name="demo",
            inference_id="any",
            received_time=now - timedelta(seconds=age_seconds),
            expires_time=now + timedelta(hours=1),
            timeout_seconds=60,
            body=b"x",
        )
    )


async def test_an_account_sees_its_own_endpoints_and_nothing_of_the_server(
    observations: Observations, queue: SqlQueue
) -> None:
    for account_id in (OURS, THEIRS):
        await accept(queue, account_id)
    seen = await read(metrics(observations, queue), THEIRS)
    assert seen["moorage_invocations"] == {(THEIRS, "demo", "A"): 1}
    assert seen["moorage_concurrent_requests"] == {(THEIRS, "demo", "A"): 1}
    assert {labels[0] for samples in seen.values() for labels in samples} == {THEIRS}
    assert not any(name.startswith(("moorage_process", "moorage_gateway")) for name in seen)
    assert [each["Invocations"] for each in metrics(observations, queue).variants(THEIRS, None)] == [1]
    assert list(metrics(observations, queue).variants(THEIRS, "other")) == []


async def test_who_may_see_everything_sees_sums(observations: Observations, queue: SqlQueue) -> None:
    seen = await read(metrics(observations, queue), None)
    assert seen["moorage_invocations"] == {(OURS, "demo", "A"): 5, (THEIRS, "demo", "A"): 1}
    assert seen["moorage_invocations_per_instance"][OURS, "demo", "A"] == 2.5
    assert seen["moorage_concurrent_requests"][OURS, "demo", "A"] == 5
    assert seen["moorage_gateway_error_replies"] == {("ValidationError",): 3}
    assert len(seen["moorage_gateway_connections"]) == 3
    assert seen["moorage_instances"][OURS, "demo", "A", "InService"] == 2
    observations.forget_process(0)
    seen = await read(metrics(observations, queue), None)
    assert seen["moorage_invocations"][OURS, "demo", "A"] == 5
    assert seen["moorage_concurrent_requests"][OURS, "demo", "A"] == 3


async def test_queues(observations: Observations, queue: SqlQueue) -> None:
    await accept(queue, OURS, age_seconds=100)
    await accept(queue, OURS)
    await accept(queue, THEIRS)
    seen = await read(metrics(observations, queue), None)
    ours, theirs = (OURS, "demo"), (THEIRS, "demo")
    assert seen["moorage_async_backlog_size"] == {ours: 2, theirs: 1}
    assert seen["moorage_async_backlog_size_per_instance"] == {ours: 1}
    assert seen["moorage_async_backlog_without_capacity"] == {ours: 0, theirs: 1}
    assert 100 <= seen["moorage_async_oldest_request_age_seconds"][ours] < 200
    assert seen["moorage_async_invocations_finished"] == {(OURS, "demo", "Failed"): 3}, "none that is gone"


# --- many endpoints ---------------------------------------------------------------------------------------


def invoked(count: int) -> Observations:
    """That many endpoints, each of which has been invoked, and one in ten has failed."""
    made = Observations()
    counts = InvocationCounts()
    for seconds in (0.0123, 0.4567):
        counts.answered(seconds, seconds / 100)
    counts.stands_behind(1)
    taken = counts.take()
    assert taken is not None
    for number in range(count):
        key = (OURS, f"recommendations-{number:05}", "AllTraffic")
        made.expect(key[0], key[1], [key[2]])
        made.take_in("gateway", {"counts": [[*key, taken]]})
        if number % 10 == 0:
            made.take_in("gateway", {"counts": [[*key, {"unanswered": 1, "invocations_per_instance": 1.0}]]})
    return made


class Scraped:
    """The reply to one request, and how long nobody else had a turn meanwhile."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.longest_seconds = 0.0
        self._at = 0.0

    async def ask(self, app: Starlette, path: str = "/_moorage/metrics", accept: str = "") -> str:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            self.parts.append(message.get("body", b""))

        headers = [(b"x-moorage-account-id", OURS.encode()), (b"accept", accept.encode())]
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers,
            "asgi": {"spec_version": "2.4"},
        }  # fmt: skip
        watching = asyncio.create_task(self._watch())
        await app(scope, receive, send)
        watching.cancel()
        return b"".join(self.parts).decode()

    async def _watch(self) -> None:
        at = monotonic()
        while True:
            await asyncio.sleep(0)
            before, at = at, monotonic()
            self.longest_seconds = max(self.longest_seconds, at - before)


def app(observations: Observations, queue: SqlQueue, buckets: str = "auto") -> Starlette:
    instances = {(*key, InstanceStatus.IN_SERVICE): 1 for key, _ in observations.variants()}
    made = Metrics(
        observations=observations,
        store=MemoryResourceStore(),
        queue=queue,
        instances=lambda: instances,
        finished=dict,
        buckets=buckets,
    )
    return Starlette(routes=metrics_routes(made, first_account_id=OURS))


async def test_ten_thousand_invoked_endpoints_are_a_small_scrape_that_holds_nobody_up(
    queue: SqlQueue,
) -> None:
    scraped = Scraped()
    text = await scraped.ask(app(invoked(10_000), queue))
    assert len(text) < 10_000_000
    assert max(map(len, scraped.parts)) < 100_000
    assert len(scraped.parts) > 300
    assert scraped.longest_seconds < 0.5  # of a second or more that all of it takes
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families["moorage_invocations"].samples) == 10_000
    assert len(families["moorage_instances"].samples) == 10_000
    latency = families["moorage_model_latency_seconds"]
    assert len(latency.samples) == 20_000
    assert {sample.name[len("moorage_model_latency_seconds") :] for sample in latency.samples} == {
        "_count",
        "_sum",
    }
    assert len(families["moorage_invocations_abandoned"].samples) == 0


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_pieces_are_one_text(queue: SqlQueue, accept: str) -> None:
    text = await Scraped().ask(app(invoked(250), queue, "all"), accept=accept)
    parse = text_string_to_metric_families if not accept else openmetrics.text_string_to_metric_families
    families = list(parse(text))
    assert len({family.name for family in families}) == len(families)
    for line in ("# HELP ", "# TYPE "):
        told = [each for each in text.splitlines() if each.startswith(line)]
        assert len(told) == len(set(told)) == len(families)
    assert text.endswith("# EOF\n") is bool(accept)
    assert text.count("# EOF") == bool(accept)
    (latency,) = [each for each in families if each.name == "moorage_model_latency_seconds"]
    assert len(latency.samples) == 250 * (34 + 2)


@pytest.mark.parametrize(
    ("setting", "count", "buckets", "has_zeros"),
    [
        ("auto", 100, 34, True),
        ("auto", 1000, 9, False),
        ("auto", 3000, 0, False),
        ("all", 3000, 34, True),
        ("coarse", 10, 9, False),
        ("none", 10, 0, False),
    ],
)
async def test_how_much_is_said_of_latencies(
    queue: SqlQueue, setting: str, count: int, buckets: int, has_zeros: bool
) -> None:
    seen = list(await metrics_of(invoked(count), queue, setting))
    for name in ("moorage_model_latency_seconds", "moorage_overhead_latency_seconds"):
        samples = [sample for family in seen if family.name == name for sample in family.samples]
        assert len([sample for sample in samples if sample.name.endswith("_bucket")]) == count * buckets
        sums = [sample.value for sample in samples if sample.name.endswith("_sum")]
        assert len(sums) == len([sample for sample in samples if sample.name.endswith("_count")]) == count
    bounds = {sample.labels["le"] for family in seen for sample in family.samples if "le" in sample.labels}
    if buckets == 9:
        assert bounds == {"0.0001", "0.001", "0.01", "0.1", "1.0", "10.0", "100.0", "1000.0", "+Inf"}
    abandoned = [family for family in seen if family.name == "moorage_invocations_abandoned"]
    assert bool(sum(len(family.samples) for family in abandoned)) is has_zeros


async def metrics_of(observations: Observations, queue: SqlQueue, buckets: str) -> Iterator[Metric]:
    made = Metrics(
        observations=observations,
        store=MemoryResourceStore(),
        queue=queue,
        instances=dict,
        finished=dict,
        buckets=buckets,
    )
    return await made.read(None)


@pytest.mark.parametrize("count", [0, 1, 20, 21, 1000])
async def test_variants_are_one_document(queue: SqlQueue, count: int) -> None:
    scraped = Scraped()
    document = json.loads(await scraped.ask(app(invoked(count), queue), "/_moorage/metrics/variants"))
    assert list(document) == ["Variants"]
    assert [each["EndpointName"] for each in document["Variants"]] == [
        f"recommendations-{number:05}" for number in range(count)
    ]
