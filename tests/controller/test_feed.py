"""The feed between a controller and gateways that come and go, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.controller.feed import Feed
from moorage.counts import InvocationCounts
from moorage.gateway.feed import Report, follow, observed
from moorage.gateway.identities import Identities
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
    feed.publish_bucket_policies({"data": {"account_id": ACCOUNT, "document": "first"}})
    await feed.listen(tmp_path / "feed")
    feed.begin()
    told: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    told_of_buckets: asyncio.Queue[Mapping[str, Mapping[str, str]]] = asyncio.Queue()
    task = asyncio.create_task(
        follow(
            tmp_path / "feed",
            RoutingTable(on_drained=lambda each: None),
            asyncio.Queue(),
            asyncio.Event(),
            policies=told.put_nowait,
            bucket_policies=told_of_buckets.put_nowait,
        )
    )
    assert await told.get() == {"arn": "first"}
    assert await told_of_buckets.get() == {"data": {"account_id": ACCOUNT, "document": "first"}}
    feed.publish_bucket_policies({})
    assert await told_of_buckets.get() == {}
    feed.publish_policies({"arn": "first"})
    feed.publish_policies({"arn": "second"})
    assert await told.get() == {"arn": "second"}, "what is as it was is not told again"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    feed.close()


async def test_tags_of_endpoints_reach_gateways_as_they_change(tmp_path: Path) -> None:
    feed = Feed(gateways=1)
    feed.change_endpoint_tags({"first": {"team": "a"}, "second": {"team": "b"}})
    await feed.listen(tmp_path / "feed")
    feed.begin()
    told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(
        follow(
            tmp_path / "feed",
            RoutingTable(on_drained=lambda each: None),
            asyncio.Queue(),
            asyncio.Event(),
            endpoint_tags=told.put_nowait,
        )
    )
    whole = {"first": {"team": "a"}, "second": {"team": "b"}}
    assert await told.get() == {"whole": True, "tags": whole}
    feed.change_endpoint_tags(whole)
    feed.change_endpoint_tags({"unknown": None, "plain": {}})
    change = {"first": {}, "second": {"team": "c"}, "third": {"team": "d"}}
    feed.change_endpoint_tags(change)
    assert await told.get() == {"whole": False, "tags": {**change, "first": None}}
    feed.change_endpoint_tags({"third": None})
    assert await told.get() == {"whole": False, "tags": {"third": None}}
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


# --- who may call ---------------------------------------------------------------------------------------

KEY = AccessKey(
    access_key_id="AKIAROOT",
    secret_access_key="s",
    account_id=ACCOUNT,
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)


def identity(name: str, *keys: str) -> dict[str, Any]:
    return {
        "arn": f"arn:aws:iam::{ACCOUNT}:user/{name}",
        "account_id": ACCOUNT,
        "id": name,
        "kind": "user",
        "tags": {},
        "access_keys": dict.fromkeys(keys, "secret"),
        "attached": [],
        "inline": {},
    }


def snapshot(*identities: dict[str, Any]) -> dict[str, Any]:
    return {"identities": {each["id"]: each for each in identities}, "policies": {}}


class Gateway:
    """What one knows of who may call."""

    def __init__(self, path: Path) -> None:
        self.access = Access(KEY)
        self.heard: list[str] = []
        hear = Identities(self.access, Verifier(self.access.credentials)).hear

        def note(message: Mapping[str, Any]) -> None:
            self.heard += message
            hear(message)

        table = RoutingTable(on_drained=lambda each: None)
        follows = follow(path, table, asyncio.Queue(), asyncio.Event(), identities=note)
        self._task = asyncio.create_task(follows)

    async def knows(self, *key_ids: str) -> None:
        async with asyncio.timeout(10):
            while self.access.credentials.keys() - {"AKIAROOT"} != set(key_ids):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path / "feed")
    yield gateway
    await gateway.close()


async def test_changes_of_identities_reach_gateways_alone(tmp_path: Path, gateway: Gateway) -> None:
    feed = Feed()
    feed.publish_identities(snapshot(*(identity(f"u{number}", f"K{number}") for number in range(3))))
    await feed.listen(tmp_path / "feed")
    await gateway.knows("K0", "K1", "K2")
    gateway.heard.clear()
    feed.change_identities(snapshot(identity("u0", "K0", "K00")))
    feed.change_identities({"identities": {"u1": None, "u2": identity("u2")}, "policies": {}})
    feed.change_identities({"identities": {"u1": None, "u2": identity("u2")}, "policies": {"none": None}})
    feed.change_identities(snapshot(identity("u3", "K3")))
    await gateway.knows("K0", "K00", "K3")
    assert gateway.heard == ["revision", "change"] * 3  # what changes nothing is not told
    late = Gateway(tmp_path / "feed")
    await late.knows("K0", "K00", "K3")
    await late.close()
    feed.close()


async def test_a_gateway_that_was_away_is_told_everything(tmp_path: Path, gateway: Gateway) -> None:
    before = Feed()
    before.publish_identities(snapshot(identity("u0", "K0"), identity("u1", "K1")))
    await before.listen(tmp_path / "feed")
    await gateway.knows("K0", "K1")
    before.close()
    after = Feed()
    after.publish_identities(snapshot(identity("u1", "K1")))
    after.change_identities(snapshot(identity("u2", "K2")))
    await after.listen(tmp_path / "feed")
    await gateway.knows("K1", "K2")
    after.change_identities(snapshot(identity("u2")))
    await gateway.knows("K1")
    after.close()


@pytest.mark.parametrize(
    "broken",
    [
        [{"revision": 7, "change": snapshot()}],  # one is missing
        [{"revision": 5, "change": snapshot()}],  # it comes again
        [{"piece": snapshot()}],
        [{"begin": 9}, {"revision": 6, "change": snapshot()}],  # it never was complete
    ],
)
async def test_what_does_not_follow_is_not_taken_in_and_everything_is_asked_for(
    tmp_path: Path, gateway: Gateway, broken: list[dict[str, Any]]
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        key = f"K{connections}"
        whole = [{"begin": 5}, {"piece": snapshot(identity("u", key))}, {"complete": 5}]
        for message in [*whole, *(broken if connections == 1 else [])]:
            writer.write(json.dumps({"identities": message}).encode() + b"\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "feed")
    await gateway.knows("K2")
    assert connections == 2
    server.close()


async def test_until_a_whole_state_is_there_the_one_before_counts(tmp_path: Path) -> None:
    access = Access(KEY)
    heard = Identities(access, Verifier(access.credentials))
    for message in ({"begin": 0}, {"piece": snapshot(identity("u", "K"))}, {"complete": 0}, {"begin": 3}):
        heard.hear(message)
    heard.hear({"piece": snapshot(identity("v", "L"))})
    assert "K" in access.credentials
    heard.hear({"complete": 3})
    assert access.credentials.keys() == {"AKIAROOT", "L"}
