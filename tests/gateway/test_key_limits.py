"""The limits of an access key: what is within passes, what is beyond is told so in each protocol's own words."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from moorage.auth.credentials import AccessKey
from moorage.auth.sessions import Session
from moorage.config import Settings
from moorage.errors import ThrottlingException
from moorage.gateway import http
from moorage.gateway.limits import LimitedConnection, Limits
from moorage.gateway.request import Request
from moorage.gateway.unverified import UnverifiedBodies
from moorage.turns import Turns
from tests.gateway.harness import ACCOUNT, ContainerConnection, Gateway, echo, request, start_gateway


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def asked() -> Request:
    """A request as it is before its head is read."""
    nobody: Any = None
    connection = LimitedConnection(
        limits=Limits(requests_per_second=0, concurrent_requests=0, clock=Clock()),
        front=nobody,
        settings=Settings(),
        connections=set(),
        visitors=nobody,
        bodies=UnverifiedBodies(limit=1, limit_of_one_address=0),
        all_closed=asyncio.Event(),
        turns=Turns(nobody),
        opening=http.ReplyOpening(),
        request_ids=http.request_ids(),
        loop=nobody,
    )
    return Request(connection)


def key(number: int) -> AccessKey:
    return AccessKey(
        access_key_id=f"AKIA{number}",
        secret_access_key="secret",
        account_id="1",
        principal_arn=f"arn:aws:iam::1:user/{number}",
        user_id=f"AIDA{number}",
    )


def session(number: int, identity_arn: str) -> Session:
    return Session(
        access_key_id=f"ASIA{number}",
        secret_access_key="secret",
        account_id="1",
        principal_arn=f"arn:aws:sts::1:assumed-role/r/{number}",
        user_id="AROA1:1",
        identity_arn=identity_arn,
        issued=datetime(2026, 1, 1, tzinfo=UTC),
        expires_at=0.0,
    )


def admitted(limits: Limits, key: AccessKey, times: int) -> int:
    """How many of so many requests at this moment are."""
    count = 0
    for _ in range(times):
        try:
            limits.admit(asked(), key)
        except ThrottlingException:
            continue
        count += 1
    return count


@pytest.mark.parametrize(
    ("rate", "at_once", "later"),
    [(10, 10, [(0.1, 1), (0.25, 2), (5, 10)]), (0.5, 1, [(1.9, 0), (0.1, 1)]), (1, 1, [(1, 1), (9, 1)])],
)
def test_a_bucket_holds_one_second_and_fills_at_the_rate(
    rate: float, at_once: int, later: list[tuple[float, int]]
) -> None:
    clock = Clock()
    limits = Limits(requests_per_second=rate, concurrent_requests=0, clock=clock)
    assert admitted(limits, key(1), 50) == at_once
    for seconds, more in later:
        clock.now += seconds
        assert admitted(limits, key(1), 50) == more


def test_each_key_has_a_share_of_its_own_and_each_identity_one_for_its_sessions() -> None:
    limits = Limits(requests_per_second=2, concurrent_requests=0, clock=Clock())
    assert admitted(limits, key(1), 5) == 2
    assert admitted(limits, key(2), 5) == 2
    assert admitted(limits, session(1, "arn:aws:iam::1:role/r"), 1) == 1
    assert admitted(limits, session(2, "arn:aws:iam::1:role/r"), 5) == 1
    assert admitted(limits, session(3, "arn:aws:iam::1:role/other"), 5) == 2


def test_what_is_released_twice_is_given_back_once() -> None:
    limits = Limits(requests_per_second=0, concurrent_requests=2, clock=Clock())
    first, second = asked(), asked()
    limits.admit(first, key(1))
    limits.admit(second, key(1))
    for never_admitted in (asked(), first, first):
        limits.release(never_admitted)
    assert admitted(limits, key(1), 5) == 1


def test_keys_that_ask_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.gateway.limits._MOST_IDLE_SHARES", 10)
    clock = Clock()
    limits = Limits(requests_per_second=1, concurrent_requests=1, clock=clock)
    busy = asked()
    limits.admit(busy, key(0))
    for number in range(1, 100):
        clock.now += 1
        done = asked()
        limits.admit(done, key(number))
        limits.release(done)
    assert "AKIA" not in repr(limits)
    assert int(repr(limits).split()[1]) <= 21
    assert admitted(limits, key(0), 3) == 0, "one with a request in flight is remembered"


async def throttled(gateway: Gateway, raw: bytes, *, status: int = 400) -> bytes:
    reply = await gateway.call(raw)
    assert reply.status == status, reply
    return reply.body


async def test_every_protocol_is_told_in_its_own_words() -> None:
    async with start_gateway(max_requests_per_second_per_key=0.001) as gateway:
        await gateway.echo()
        assert (await gateway.call(request(b"first"))).status == 200
        reply = await gateway.call(request(b"x"))
        assert (reply.status, reply.error) == (400, "ThrottlingException")
        assert json.loads(reply.body)["message"].startswith("Rate exceeded: ")
        for operation in ("invocations-response-stream", "async-invocations"):
            assert b"Rate exceeded" in await throttled(gateway, request(b"x", f"/endpoints/echo/{operation}"))
        body = await throttled(
            gateway, request(b"{}", "/", headers={"X-Amz-Target": "SageMaker.ListEndpoints"})
        )
        assert json.loads(body)["__type"] == "ThrottlingException"
        assert b"<Code>Throttling</Code>" in await throttled(
            gateway, request(b"Action=GetCallerIdentity", "/", service="sts")
        )
        slow_down = await throttled(gateway, request(b"x", "/b/k", method="PUT", service="s3"), status=503)
        assert b"<Code>SlowDown</Code>" in slow_down


@pytest.mark.parametrize(
    "asked",
    [
        "GET /b/k",
        "GET /b",
        "PUT /b/k",
        "PUT /b/k?tagging",
        "PUT /b?policy",
        "POST /b?delete",
        "GET /b/k?torrent",
    ],
)
async def test_whatever_is_asked_of_s3_counts_before_it_is_looked_at(asked: str) -> None:
    method, path = asked.split()
    about_tags = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"],
        "Condition": {"StringLike": {"s3:ExistingObjectTag/team": "*"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": about_tags})
    async with start_gateway(max_requests_per_second_per_key=0.001) as gateway:
        gateway.front.access.replace_bucket_policies({"b": {"account_id": ACCOUNT, "document": document}})
        await gateway.call(request(b"", path, method=method, service="s3"))
        slow_down = await throttled(gateway, request(b"", path, method=method, service="s3"), status=503)
        assert b"<Code>SlowDown</Code>" in slow_down


async def test_a_stranger_uses_up_nobodys_share() -> None:
    async with start_gateway(
        max_requests_per_second_per_key=0.001, max_concurrent_requests_per_key=1
    ) as gateway:
        await gateway.echo()
        for _ in range(5):
            tampered = request(b"body").replace(b"body", b"bodY")
            assert (await gateway.call(tampered)).status == 403
        assert (await gateway.call(request(b"mine"))).body == b"mine"


async def test_the_server_itself_is_not_limited() -> None:
    async with start_gateway(max_requests_per_second_per_key=0.001, internal=True) as gateway:
        await gateway.echo()
        for _ in range(3):
            assert (await gateway.call(request(b"x"), internal=True)).status == 200
        assert (await gateway.call(request(b"x"))).status == 200
        assert (await gateway.call(request(b"x"))).status == 400


async def test_as_many_at_once_as_allowed_and_each_place_is_given_back() -> None:
    """Whatever becomes of a request: answered, refused, broken, cut off by its client."""
    waiting: asyncio.Queue[ContainerConnection] = asyncio.Queue()

    async def script(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            if message.body == b"wait":
                waiting.put_nowait(connection)
                await asyncio.Event().wait()
            await connection.reply(message.body)

    async with start_gateway(max_concurrent_requests_per_key=2) as gateway:
        limits = gateway.front.limits
        gateway.route(await gateway.container(script))
        gateway.route(name="nothing")
        clients = [await gateway.client() for _ in range(2)]
        held = []
        for client in clients:
            client.send(request(b"wait"))
            held.append(await waiting.get())
        reply = await gateway.call(request(b"x"))
        assert (reply.status, reply.error) == (400, "ThrottlingException")
        assert "2 requests of this access key" in json.loads(reply.body)["message"]
        clients[0].close()
        await held[0].closed_by_gateway()
        assert "1 requests in flight" in repr(limits)
        assert (await gateway.call(request(b"x"))).body == b"x"
        for _ in range(3):
            assert (await gateway.call(request(b"x", "/endpoints/nothing/invocations"))).status == 503
            assert (await gateway.call(request(b"x", "/endpoints/none/invocations"))).status == 400
            assert (await gateway.call(request(b"x", "/b/k", method="PUT", service="s3"))).status == 503
        assert "1 requests in flight" in repr(limits)
        held[1].reset()
        assert (await clients[1].reply()).status == 424
        assert "0 requests in flight" in repr(limits)


async def test_a_pipeline_asks_one_after_the_other() -> None:
    async with start_gateway(max_concurrent_requests_per_key=1) as gateway:
        gateway.route(await gateway.container(echo))
        client = await gateway.client()
        client.send(b"".join(request(b"%d" % number) for number in range(20)))
        assert [(await client.reply()).body for _ in range(20)] == [b"%d" % number for number in range(20)]
