"""What an account may read of the metrics, and what is said of queues and instances."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moorage.async_inference.base import AsyncInvocation, Status
from moorage.async_inference.sql import SqlQueue
from moorage.controller.metrics import Metrics
from moorage.controller.observations import Observations
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
    assert metrics(observations, queue).variants(THEIRS, "other") == []


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
