"""The tags that a policy asks about, read before the operation that it decides."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.gateway.harness import ACCOUNT, ContainerConnection, Gateway, Message, request

READS = "GET /bucket/key?tagging= HTTP/1.1"
PATH = "/bucket/key"


def get(path: str = PATH, body: bytes = b"") -> bytes:
    return request(body, path, method="GET", service="s3")


def tagging(value: str) -> bytes:
    return f"<Tagging><TagSet><Tag><Key>team</Key><Value>{value}</Value></Tag></TagSet></Tagging>".encode()


@pytest.fixture(autouse=True)
def policy(gateway: Gateway) -> None:
    """Nobody may do anything about the objects of another team."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": "arn:aws:s3:::bucket/*",
        "Condition": {"StringEquals": {"s3:ExistingObjectTag/team": "another"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    gateway.front.access.replace_bucket_policies({"bucket": {"account_id": ACCOUNT, "document": document}})


def s3(tags: bytes, *, status: int = 200) -> Callable[[ContainerConnection], Awaitable[None]]:
    """One that tells these tags of each object, and of other requests how they began."""

    async def script(connection: ContainerConnection) -> None:
        while True:
            arrived = await connection.request()
            if arrived.start == READS:
                await connection.reply(tags, status=status)
            else:
                await connection.reply(arrived.start.encode())

    return script


@pytest.mark.parametrize(("team", "status"), [("ours", 200), ("another", 403)])
async def test_the_tags_decide(gateway: Gateway, team: str, status: int) -> None:
    await gateway.upstream(gateway.settings.s3_socket, s3(tagging(team)))
    reply = await gateway.call(get())
    assert reply.status == status
    assert (b"<Code>AccessDenied</Code>" in reply.body) == (status == 403)


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_what_is_not_there_has_no_tags(gateway: Gateway, status: int) -> None:
    await gateway.upstream(gateway.settings.s3_socket, s3(b"<Error/>", status=status))
    assert (await gateway.call(get())).body == f"GET {PATH} HTTP/1.1".encode()


@pytest.mark.parametrize(("tags", "status"), [(b"<Error/>", 500), (b"", 204), (tagging("ours")[1:], 200)])
async def test_without_the_tags_nothing_is_done(gateway: Gateway, tags: bytes, status: int) -> None:
    container = await gateway.upstream(gateway.settings.s3_socket, s3(tags, status=status))
    assert (await gateway.call(get())).status >= 400
    assert container.connections == 1


async def test_the_operation_gets_its_body(gateway: Gateway) -> None:
    arrived: list[Message] = []

    async def script(connection: ContainerConnection) -> None:
        while True:
            arrived.append(await connection.request())
            await connection.reply(tagging("ours"))

    await gateway.upstream(gateway.settings.s3_socket, script)
    body = tagging("theirs") + b" " * 60_000
    put = request(body, f"{PATH}?tagging", method="PUT", service="s3")
    client = await gateway.client()
    client.send(put[: -len(body)])
    assert await gateway.is_alive()
    for start in range(0, len(body), 20_000):
        client.send(body[start : start + 20_000])
    assert (await client.reply()).status == 200
    reading, writing = arrived
    assert (reading.start, writing.start) == (READS, "PUT /bucket/key?tagging= HTTP/1.1")
    assert b"<Value>theirs</Value>" in writing.body


async def test_an_idle_connection_that_had_died_is_replaced(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        while True:
            start = (await connection.request()).start
            await connection.reply(tagging("ours") if start == READS else start.encode())
            if connection.number == 1 and start != READS:
                return

    container = await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(get() * 2)
    for _ in range(2):
        assert (await client.reply()).body == f"GET {PATH} HTTP/1.1".encode()
    assert container.connections == 2


async def test_an_s3_that_comes_back_gets_the_request(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.gateway.relay._PATIENCE_SECONDS", 30)
    client = await gateway.client()
    client.send(get())
    assert await gateway.is_alive()
    await gateway.upstream(gateway.settings.s3_socket, s3(tagging("ours")))
    assert (await client.reply()).status == 200


async def test_a_client_that_leaves_ends_the_reading(gateway: Gateway) -> None:
    asked = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        asked.set()
        await connection.closed_by_gateway()

    container = await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(get())
    await asked.wait()
    client.close()
    assert await asyncio.wait_for(container.ended.get(), 5) == 1


async def test_a_body_that_was_tampered_with_ends_the_operation(gateway: Gateway) -> None:
    begun = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        while (await connection.request()).start == READS:
            await connection.reply(tagging("ours"))
        begun.set()
        await connection.closed_by_gateway()

    container = await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(get(body=b"body")[:-1] + b"x")
    reply = await client.reply()
    assert (reply.status, b"<Code>XAmzContentSHA256Mismatch</Code>" in reply.body) == (400, True)
    assert await asyncio.wait_for(container.ended.get(), 5) == 1
