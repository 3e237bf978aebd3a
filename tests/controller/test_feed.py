"""The feed between a controller and gateways that come and go, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from moorage.controller.feed import Feed
from moorage.counts import InvocationCounts
from moorage.gateway.feed import Report, follow, observed
from moorage.routing.table import RoutingTable, route_document

ACCOUNT = "000000000000"
ROUTE = route_document(
    account_id=ACCOUNT,
    name="demo",
    region="us-east-1",
    variants=[
        {
            "name": "A",
            "weight": 1.0,
            "container_hostname": None,
            "instances": [{"instance_id": "i-1", "host": "127.0.0.1", "port": 1, "generation": 1}],
        }
    ],
    asynchronous=False,
    provisioning=False,
)


@asynccontextmanager
async def following(path: Path) -> AsyncIterator[RoutingTable]:
    reports: asyncio.Queue[Report] = asyncio.Queue()
    table = RoutingTable(on_drained=lambda each: reports.put_nowait({"drained": each}))
    task = asyncio.create_task(follow(path, table, reports, asyncio.Event()))
    try:
        yield table
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_counts_as_synced_while_a_gateway_is_on_its_way_back(tmp_path: Path) -> None:
    feed = Feed(gateways=1)
    await feed.listen(tmp_path / "feed")
    feed.begin()
    feed.put(ROUTE)
    synced = asyncio.create_task(feed.synced(timeout_seconds=30))
    await asyncio.wait({synced}, timeout=0.05)
    assert not synced.done()
    async with following(tmp_path / "feed") as table:
        await synced
        assert table.find(ACCOUNT, "demo") is not None
    feed.close()


async def test_a_gateway_that_connects_late_is_asked_what_is_drained(tmp_path: Path) -> None:
    feed = Feed(gateways=1)
    await feed.listen(tmp_path / "feed")
    feed.begin()
    feed.put(ROUTE)
    drained = asyncio.create_task(feed.drained(["i-1"], timeout_seconds=30))
    await asyncio.wait({drained}, timeout=0.05)
    assert not drained.done()
    async with following(tmp_path / "feed"):
        await asyncio.wait({drained}, timeout=0.05)
        assert not drained.done()
        feed.remove(ACCOUNT, "demo")
        assert await drained
    feed.close()


async def test_policies_reach_gateways_that_are_there_and_those_that_come(tmp_path: Path) -> None:
    feed = Feed(gateways=1)
    feed.publish_policies({"arn": "first"})
    await feed.listen(tmp_path / "feed")
    feed.begin()
    told: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    task = asyncio.create_task(
        follow(
            tmp_path / "feed",
            RoutingTable(on_drained=lambda each: None),
            asyncio.Queue(),
            asyncio.Event(),
            policies=told.put_nowait,
        )
    )
    assert await told.get() == {"arn": "first"}
    feed.publish_policies({"arn": "first"})
    feed.publish_policies({"arn": "second"})
    assert await told.get() == {"arn": "second"}, "what is as it was is not told again"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    feed.close()


async def test_what_gateways_observe_is_added_up_and_outlives_them(tmp_path: Path) -> None:
    feed = Feed(gateways=2)
    await feed.listen(tmp_path / "feed")
    feed.begin()
    feed.put(ROUTE)
    async with observing(tmp_path / "feed") as one:
        async with observing(tmp_path / "feed") as other:
            await feed.synced()
            for table, times in ((one, 2), (other, 3)):
                counts = counts_in(table)
                for _ in range(times):
                    counts.answered(0.01, 0.001)
        await eventually(lambda: total(feed) == 3, "the last words of the one that was stopped")
        counts_in(one).abandoned()
    await eventually(lambda: total(feed) == 6, "those of the other")
    await eventually(lambda: not feed.observations.processes(), "that both are gone")
    [(key, counts)] = feed.observations.variants()
    assert key == (ACCOUNT, "demo", "A")
    assert counts.client_gone == 1
    assert counts.model_latency.count == 5
    feed.remove(ACCOUNT, "demo")
    assert list(feed.observations.variants()) == []
    feed.close()


async def test_what_is_counted_while_the_controller_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    first = Feed(gateways=1)
    await first.listen(tmp_path / "feed")
    first.begin()
    first.put(ROUTE)
    async with observing(tmp_path / "feed") as table:
        await first.synced()
        first.close()
        counts_in(table).failed(by_model=False)
        second = Feed(gateways=1)
        await second.listen(tmp_path / "feed")
        second.put(ROUTE)
        second.begin()
        await second.synced()
    await eventually(lambda: total(second) == 1, "the report")
    second.close()


async def test_reports_of_an_endpoint_that_is_gone_are_dropped() -> None:
    observations = Feed().observations
    report = {"counts": [[ACCOUNT, "gone", "A", {"invocations_per_instance": 1, "unanswered": 1}]]}
    observations.take_in("a gateway", {**report, "process": {"name": "gateway", "pid": 1, "in_flight": []}})
    assert list(observations.variants()) == []
    observations.expect(ACCOUNT, "gone", ["A"])
    [(_, counts)] = observations.variants()
    assert counts.invocations == 0


@asynccontextmanager
async def observing(path: Path) -> AsyncIterator[RoutingTable]:
    """A gateway that tells what its table's routes have counted, when it ends at the latest."""
    table = RoutingTable(on_drained=lambda each: None)

    task = asyncio.create_task(
        follow(
            path,
            table,
            asyncio.Queue(),
            asyncio.Event(),
            observe=lambda: observed(table, {"name": "gateway"}),
        )
    )
    try:
        yield table
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def counts_in(table: RoutingTable) -> InvocationCounts:
    route = table.find(ACCOUNT, "demo")
    assert route is not None
    return route.variants[0].counts


def total(feed: Feed) -> int:
    return sum(counts.invocations for _, counts in feed.observations.variants())


async def eventually(condition: Callable[[], bool], what: str) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(wait(), 30)
    except TimeoutError:
        raise AssertionError(f"{what} never came") from None


async def test_a_large_table_is_taken_in_while_others_go_on(tmp_path: Path) -> None:
    """A gateway that connects gets thousands of routes, and answers invocations meanwhile."""
    feed = Feed(gateways=1)
    await feed.listen(tmp_path / "feed")
    for number in range(2000):
        feed.put({**ROUTE, "name": f"e-{number}"})
    feed.begin()
    async with following(tmp_path / "feed") as table:
        between = 0
        while not table.complete:
            between += table.find(ACCOUNT, "e-0") is not None
            await asyncio.sleep(0)
        assert between > 1000
        assert table.find(ACCOUNT, "e-1999") is not None
    feed.close()


async def test_gateways_know_how_the_control_plane_does_and_that_it_is_away(tmp_path: Path) -> None:
    feed = Feed(gateways=1)
    await feed.listen(tmp_path / "feed")
    feed.publish_control_plane({"controller": {"available": True, "epoch": 1}})
    told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(
        follow(
            tmp_path / "feed",
            RoutingTable(on_drained=lambda each: None),
            asyncio.Queue(),
            asyncio.Event(),
            control_plane=told.put_nowait,
        )
    )
    assert await told.get() == {"controller": {"available": True, "epoch": 1}}
    feed.publish_control_plane({"controller": {"available": True, "epoch": 2}})
    assert await told.get() == {"controller": {"available": True, "epoch": 2}}
    feed.close()
    away = (await told.get())["controller"]
    assert away["available"] is False
    assert datetime.fromisoformat(away["since"]).tzinfo is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
