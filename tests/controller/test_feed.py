"""The feed between a controller and gateways that come and go, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from moorage.controller.feed import Feed
from moorage.gateway.feed import Report, follow
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
