"""What is counted of invocations: each exactly once, by what became of it; and whose time is whose."""

import asyncio
import time

import pytest

from moorage.counts import InvocationCounts
from moorage.routing.table import CountsTaken
from tests.gateway.harness import (
    ACCOUNT,
    ContainerConnection,
    Gateway,
    Script,
    chunked,
    request,
    start_gateway,
)

STREAM = "/endpoints/echo/invocations-response-stream"


def counts_of(gateway: Gateway, variant: str = "AllTraffic") -> InvocationCounts:
    route = gateway.server.table.find(ACCOUNT, "echo")
    assert route is not None
    return route.by_name[variant].counts


def take_counts(gateway: Gateway) -> list[CountsTaken]:
    return [taken for counts, _ in gateway.server.table.observe() for taken in counts]


def told(gateway: Gateway) -> dict[str, int]:
    """The counts that are not 0."""
    counts = counts_of(gateway)
    numbers = {
        "invocations": counts.invocations,
        "answered": counts.model_latency.count,
        "overhead": counts.overhead_latency.count,
        "model_4xx": counts.model_4xx,
        "model_5xx": counts.model_5xx,
        "model_errors": counts.model_errors,
        "mid_stream_errors": counts.mid_stream_errors,
        "platform_errors": counts.platform_errors,
        "client_gone": counts.client_gone,
        "first_chunks": counts.first_chunk_latency.count,
    }
    return {name: number for name, number in numbers.items() if number}


def answering(status: int, headers: dict[str, str] | None = None) -> Script:
    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            await connection.reply(b"so be it", status=status, headers=headers)

    return script


def writing(data: bytes) -> Script:
    """A container that answers with these bytes and closes."""

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(data)

    return script


async def silent(connection: ContainerConnection) -> None:
    await connection.request()
    await connection.closed_by_gateway()


async def test_successes(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    for _ in range(3):
        assert (await client.call(request(b"x"))).status == 200
    assert told(gateway) == {"invocations": 3, "answered": 3, "overhead": 3}


@pytest.mark.parametrize(
    ("status", "named"),
    [(400, {"model_4xx": 1}), (429, {"model_4xx": 1}), (503, {"model_5xx": 1}), (302, {})],
)
@pytest.mark.parametrize("path", ["/endpoints/echo/invocations", STREAM])
async def test_errors_that_the_model_answers(
    gateway: Gateway, status: int, named: dict[str, int], path: str
) -> None:
    gateway.route(await gateway.container(answering(status)))
    assert (await gateway.call(request(b"x", path))).error == "ModelError"
    assert told(gateway) == {"invocations": 1, "answered": 1, "overhead": 1, "model_errors": 1, **named}


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"]
)
async def test_models_that_do_not_answer_in_full(gateway: Gateway, reply: bytes) -> None:
    gateway.route(await gateway.container(writing(reply)))
    assert (await gateway.call(request(b"x"))).error == "ModelError"
    assert told(gateway) == {"invocations": 1, "model_errors": 1}


@pytest.mark.parametrize("path", ["/endpoints/echo/invocations", STREAM])
async def test_models_that_take_too_long(path: str) -> None:
    async with start_gateway(invocation_timeout_seconds=0.1) as gateway:
        gateway.route(await gateway.container(silent))
        assert (await gateway.call(request(b"x", path))).error == "ModelError"
        assert told(gateway) == {"invocations": 1, "model_errors": 1}


async def test_variants_without_an_instance(gateway: Gateway) -> None:
    gateway.route()
    assert (await gateway.call(request(b"x"))).error == "ServiceUnavailable"
    assert told(gateway) == {"invocations": 1, "platform_errors": 1}


@pytest.mark.parametrize("path", ["/endpoints/echo/invocations", STREAM])
async def test_clients_that_go_away(gateway: Gateway, path: str) -> None:
    inside = asyncio.Event()
    container = await gateway.container(lambda connection: _noting(inside, connection))
    gateway.route(container)
    client = await gateway.connect()
    client.send(request(b"x", path))
    await inside.wait()
    await client.closed()
    await container.ended.get()
    assert told(gateway) == {"invocations": 1, "client_gone": 1}


async def _noting(inside: asyncio.Event, connection: ContainerConnection) -> None:
    await connection.request()
    inside.set()
    await connection.closed_by_gateway()


async def test_streams(gateway: Gateway) -> None:
    parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two")
    gateway.route(await gateway.container(writing(parts)))
    assert (await gateway.call(request(b"x", STREAM))).status == 200
    assert told(gateway) == {"invocations": 1, "answered": 1, "overhead": 1, "first_chunks": 1}
    counts = counts_of(gateway)
    first = counts.first_chunk_latency.seconds
    of_model = counts.first_chunk_model_latency.seconds
    assert first == pytest.approx(of_model + counts.first_chunk_overhead_latency.seconds)
    assert 0 < of_model <= counts.model_latency.seconds


async def test_a_stream_that_breaks(gateway: Gateway) -> None:
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    gateway.route(await gateway.container(writing(begun)))
    reply = await gateway.call(request(b"x", STREAM))
    assert b"ModelStreamError" in reply.body
    assert told(gateway) == {"invocations": 1, "model_errors": 1, "mid_stream_errors": 1, "first_chunks": 1}


async def test_a_stream_without_a_part_has_no_first_chunk(gateway: Gateway) -> None:
    gateway.route(await gateway.container(answering(204)))
    assert (await gateway.call(request(b"x", STREAM))).status == 200
    assert told(gateway) == {"invocations": 1, "answered": 1, "overhead": 1}


async def test_what_reaches_no_variant_is_counted_by_its_error(gateway: Gateway) -> None:
    await gateway.echo()
    good = request(b"x")
    assert (await gateway.call(good.replace(b"Signature=", b"Signature=0"))).status == 403
    assert (await gateway.call(request(b"x", "/endpoints/nobody/invocations"))).status == 400
    assert (await gateway.call(request(b"", "/B/k", method="GET", service="s3"))).status == 400
    assert told(gateway) == {}
    errors = gateway.front.take_error_replies()
    assert sum(errors.values()) == 3
    assert errors["ValidationError"] == errors["InvalidBucketName"] == 1
    assert gateway.front.take_error_replies() == {}


async def test_the_overhead_is_all_but_the_time_of_the_model(gateway: Gateway) -> None:
    held: list[float] = []

    async def slow(connection: ContainerConnection) -> None:
        message = await connection.request()
        began = time.monotonic()
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, over.set)
        await over.wait()
        held.append(time.monotonic() - began)
        await connection.reply(message.body)

    gateway.route(await gateway.container(slow))
    began = time.monotonic()
    assert (await gateway.call(request(b"x"))).status == 200
    elapsed = time.monotonic() - began
    counts = counts_of(gateway)
    assert counts.model_latency.seconds >= held[0]
    assert 0 < counts.overhead_latency.seconds <= elapsed - held[0]


async def test_waiting_behind_ones_own_pipelined_request_is_no_overhead(gateway: Gateway) -> None:
    async def slow(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, over.set)
            await over.wait()
            await connection.reply(message.body)

    gateway.route(await gateway.container(slow))
    client = await gateway.client()
    began = time.monotonic()
    client.send(request(b"one") + request(b"two"))
    assert [(await client.reply()).body for _ in range(2)] == [b"one", b"two"]
    elapsed = time.monotonic() - began
    counts = counts_of(gateway)
    assert counts.invocations == 2
    assert counts.model_latency.seconds + counts.overhead_latency.seconds <= elapsed


async def test_counts_outlive_routes_and_end_with_the_endpoint(gateway: Gateway) -> None:
    container = await gateway.echo()
    await gateway.call(request(b"x"))
    gateway.route(container)
    await gateway.call(request(b"x"))
    assert counts_of(gateway).invocations == 2
    gateway.server.table.remove(ACCOUNT, "echo")
    gateway.route(container)
    assert counts_of(gateway).invocations == 0


async def test_each_invocation_adds_its_share_of_an_instance(gateway: Gateway) -> None:
    container = await gateway.echo()
    await gateway.call(request(b"x"))
    gateway.route(container, container)
    await gateway.call(request(b"x"))
    await gateway.call(request(b"x"))
    gateway.route(container)
    [(account_id, endpoint, variant, taken)] = take_counts(gateway)
    assert (account_id, endpoint, variant) == (ACCOUNT, "echo", "AllTraffic")
    assert taken["invocations_per_instance"] == 1 + 0.5 + 0.5
    assert take_counts(gateway) == []
    await gateway.call(request(b"x"))
    [(*_, taken)] = take_counts(gateway)
    assert taken["invocations_per_instance"] == 1
    assert sum(number for _, number in taken["model_latency"][1:]) == 1


async def test_what_a_gateway_tells_of_itself(gateway: Gateway) -> None:
    inside = asyncio.Event()
    gateway.route(await gateway.container(lambda connection: _noting(inside, connection)))
    client = await gateway.client()
    client.send(request(b"x"))
    await inside.wait()
    [*_, last] = gateway.server.observe(gateway.front)
    process = last["process"]
    assert process["in_flight"] == [(ACCOUNT, "echo", "AllTraffic", 1)]
    assert process["connections"] == 1
    assert process["resident_bytes"] > 2**20
    assert process["cpu_seconds"] > 0
    assert process["event_loop_lag_seconds"] >= 0
