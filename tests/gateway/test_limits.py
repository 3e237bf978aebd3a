"""Sizes and times: what is within passes whole, what is beyond is refused and kept nowhere."""

import asyncio
import gc
import json
import tracemalloc

import pytest

from moorage.config import MAX_CONTROL_PLANE_BODY_BYTES
from moorage.gateway.client_connection import ClientConnection
from tests.gateway.harness import (
    HEALTH,
    ContainerConnection,
    Gateway,
    chunked,
    echo,
    head,
    request,
    signed,
    start_gateway,
)

PATH = "/endpoints/echo/invocations"
CHUNKED = {"Transfer-Encoding": "chunked"}
MIB = 1024 * 1024


def pattern(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(size % 256)


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_of_exactly_the_limit_passes_byte_for_byte(gateway: Gateway, framing: str) -> None:
    await gateway.echo()
    body = pattern(100_000)
    client = await gateway.client()
    if framing == "length":
        client.send(request(body))
    else:
        client.send(head(PATH, {**signed(body=body), **CHUNKED}))
        client.send(chunked(*(body[at : at + 999] for at in range(0, len(body), 999))))
    assert (await client.reply()).body == body


async def test_a_body_one_byte_longer_is_refused_by_its_head(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(head(PATH, {**signed(), "Content-Length": "100001"}))
    reply = await client.reply()  # nothing of the body was sent
    assert (reply.status, reply.error) == (413, "RequestEntityTooLargeException")
    assert json.loads(reply.body) == {"message": "HTTP content length exceeded 100000 bytes."}
    assert await client.rest() == b""


async def test_a_body_for_the_control_plane_has_the_limit_of_the_controller(gateway: Gateway) -> None:
    headers = {"X-Amz-Target": "SageMaker.ListModels"}
    client = await gateway.client()
    lines = {**signed("/", headers=headers), "Content-Length": str(MAX_CONTROL_PLANE_BODY_BYTES + 1)}
    client.send(head("/", lines))
    reply = await client.reply()  # nothing of the body was sent
    assert (reply.status, reply.error) == (413, "RequestEntityTooLargeException")
    assert "exceeded 1048576 bytes" in json.loads(reply.body)["message"]


async def test_a_chunked_body_one_byte_longer_is_refused(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(head(PATH, {**signed(), **CHUNKED}) + chunked(b"x" * 100_000, b"y"))
    assert (await client.reply()).status == 413
    assert await client.rest() == b""


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_what_is_too_large_is_not_kept(gateway: Gateway, framing: str) -> None:
    client = await gateway.client()
    await client.call(HEALTH)
    framed = {"Content-Length": str(64 * MIB)} if framing == "length" else CHUNKED
    client.send(head(PATH, {**signed(), **framed}))
    piece = b"100000\r\n" + bytes(MIB) + b"\r\n" if framing == "chunks" else bytes(MIB)
    tracemalloc.start()
    try:
        client.send(piece)
        assert (await client.reply()).status == 413
        for _ in range(32):
            client.send(piece)
            await client.writer.drain()
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


async def test_tiny_chunks_do_not_weigh_more_than_their_bytes() -> None:
    async with start_gateway(max_body_bytes=MIB, max_response_bytes=MIB) as gateway:
        await gateway.echo()
        body = pattern(200_000)
        wire = chunked(*(body[at : at + 2] for at in range(0, len(body), 2)))
        client = await gateway.client()
        tracemalloc.start()
        try:
            client.send(head(PATH, {**signed(body=body), **CHUNKED}) + wire)
            before = tracemalloc.get_traced_memory()[0]
            assert (await client.reply()).body == body
            assert tracemalloc.get_traced_memory()[1] - before < 6 * len(body) + len(wire)
        finally:
            tracemalloc.stop()


async def test_a_large_chunked_body_is_hashed_on_the_way() -> None:
    async with start_gateway(max_body_bytes=2 * MIB, max_response_bytes=2 * MIB) as gateway:
        await gateway.echo()
        body = pattern(MIB + 17)
        client = await gateway.client()
        client.send(head(PATH, {**signed(body=body), **CHUNKED}) + chunked(body[:MIB], body[MIB:]))
        assert (await client.reply()).body == body
        client.send(head(PATH, {**signed(body=body), **CHUNKED}) + chunked(body[:MIB], b"tampered with"))
        assert (await client.reply()).error == "InvalidSignatureException"


@pytest.mark.parametrize("framing", ["length", "chunks", "none"])
async def test_a_reply_of_exactly_the_limit_passes(gateway: Gateway, framing: str) -> None:
    body = pattern(100_000)

    async def script(connection: ContainerConnection) -> None:
        for at_limit in (True, False):
            sent = body if at_limit else body + b"!"
            await connection.request()
            if framing == "length":
                await connection.reply(sent)
            elif framing == "chunks":
                await connection.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(sent)
                )
            else:
                await connection.write(
                    b"HTTP/1.1 200 OK\r\n\r\n" + (sent if connection.number == 1 else body + b"!")
                )
                return

    container = await gateway.container(script)
    gateway.route(container)
    client = await gateway.client()
    assert (await client.call(request())).body == body
    reply = await client.call(request())
    assert (reply.status, reply.error) == (424, "ModelError")
    error = json.loads(reply.body)
    assert error["OriginalMessage"] == "The response is larger than the limit of 100000 bytes."
    assert error["ErrorCode"] == "INTERNAL_FAILURE_FROM_MODEL"
    assert "could not load the entire response body" in error["Message"]


async def test_a_container_that_never_ends_its_head_is_cut_off(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await connection.write(b"x" * 65536)

    gateway.route(await gateway.container(script))
    reply = await gateway.call(request())
    assert reply.status == 424
    assert "head of its reply exceeds 262144 bytes" in json.loads(reply.body)["Message"]


async def test_time_limits_of_requests() -> None:
    """Several at once, for each waits for its limit."""

    async with start_gateway(
        header_timeout_seconds=0.2,
        body_timeout_seconds=0.3,
        idle_timeout_seconds=0.4,
        container_idle_seconds=60,
    ) as gateway:
        await gateway.echo()

        async def idle(data: bytes) -> None:
            client = await gateway.client()
            if data:
                await client.call(data)
            assert await client.rest() == b""

        async def late(data: bytes, part: str) -> None:
            client = await gateway.client()
            client.send(data)
            reply = await client.reply()
            assert (reply.status, reply.error) == (408, "RequestTimeoutException")
            assert json.loads(reply.body)["message"] == f"The request's {part} did not arrive in time."
            assert await client.rest() == b""

        async def behind(data: bytes) -> None:
            client = await gateway.client()
            client.send(request(b"good") + data)
            assert (await client.reply()).body == b"good"
            assert (await client.reply()).status == 408
            assert await client.rest() == b""

        whole = request(b"body")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(idle(b""))
            group.create_task(idle(HEALTH))
            group.create_task(idle(whole))
            group.create_task(late(whole[:1], "head"))
            group.create_task(late(whole[:-10], "head"))
            group.create_task(late(whole[:-1], "body"))
            group.create_task(behind(whole[:20]))
            group.create_task(behind(whole[:-1]))


async def test_a_pipelined_request_waits_without_a_time_limit_of_its_own() -> None:
    """While an invocation runs, the clock of the request behind it stands still: it is not read on purpose."""
    go = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        message = await connection.request()
        await go.wait()
        await connection.reply(message.body)
        await echo(connection)

    async with start_gateway(header_timeout_seconds=0.1, body_timeout_seconds=0.1) as gateway:
        gateway.route(await gateway.container(script))
        client = await gateway.client()
        client.send(request(b"slow"))
        client.send(request(b"behind")[:-3])
        # Another client that is late marks the time: its limit is enforced, and passes by the first.
        late = await gateway.client()
        late.send(b"GET")
        assert (await late.reply()).status == 408
        go.set()
        client.send(b"ind")
        assert (await client.reply()).body == b"slow"
        assert (await client.reply()).body == b"behind"


async def test_a_slow_body_that_keeps_coming_is_not_late() -> None:
    async with start_gateway(body_timeout_seconds=1.5, header_timeout_seconds=1.5) as gateway:
        await gateway.echo()
        body = b"0123456789"
        client = await gateway.client()
        start = asyncio.get_running_loop().time()
        client.send(request(body)[: -len(body)])
        for byte in body:
            await asyncio.sleep(0.25)
            client.send(bytes([byte]))
        assert (await client.reply()).body == body
        assert asyncio.get_running_loop().time() - start > 2


async def large_replies(connection: ContainerConnection) -> None:
    while True:
        await connection.request()
        await connection.reply(bytes(4 * MIB))


async def test_a_client_that_does_not_take_its_reply_is_cut_off() -> None:
    async with start_gateway(
        max_response_bytes=8 * MIB, body_timeout_seconds=0.3, idle_timeout_seconds=600
    ) as gateway:
        container = await gateway.container(large_replies)
        gateway.route(container)
        client = await gateway.client(receive_buffer=4096)
        client.send(request())
        await asyncio.wait_for(client.reader.readexactly(100), 10)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while "0 connections" not in repr(gateway.server):
            await asyncio.sleep(0.05)  # there is no event for a connection that ends on the other side
        assert await gateway.is_alive()


async def test_a_client_that_takes_its_reply_slowly_gets_it_whole() -> None:
    async with start_gateway(max_response_bytes=8 * MIB, body_timeout_seconds=0.9) as gateway:
        gateway.route(await gateway.container(large_replies))
        client = await gateway.client(receive_buffer=4096)
        client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        read = 0
        for _ in range(12):  # three seconds: longer than a pause may be
            read += len(await client.reader.readexactly(256 * 1024))
            await asyncio.sleep(0.25)
        await client.reader.readexactly(4 * MIB - read)
        assert (await client.call(HEALTH)).status == 200


async def test_no_reply_is_made_for_a_client_that_does_not_read() -> None:
    """However much it pipelines: one reply waits for it, and the rest is not even asked for."""
    seen: list[bytes] = []

    async def script(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            seen.append(message.body)
            await connection.reply(bytes(4 * MIB if message.body == b"greedy" else 1))

    async with start_gateway(max_response_bytes=8 * MIB) as gateway:
        gateway.route(await gateway.container(script))
        client = await gateway.client(receive_buffer=4096)
        client.send(request(b"greedy") * 5)
        for _ in range(20):
            assert (await gateway.call(request(b"modest"))).status == 200
        assert seen.count(b"greedy") <= 2
        for _ in range(5):
            assert len((await client.reply()).body) == 4 * MIB
        assert seen.count(b"greedy") == 5


@pytest.mark.parametrize("pipelined", [False, True], ids=["at once", "behind a good request"])
async def test_headers_without_end_are_neither_parsed_nor_kept(gateway: Gateway, pipelined: bool) -> None:
    """However many of them come in one read, and although the connection lingers."""
    await gateway.echo()
    lines = b"".join(b"%d:\r\n" % number for number in range(10_000, 50_000))
    client = await gateway.client()
    await client.call(HEALTH)
    tracemalloc.start()
    try:
        before = request(b"good") if pipelined else b""
        client.send(before + b"POST / HTTP/1.1\r\nHost: a\r\n" + lines)
        if pipelined:
            assert (await client.reply()).body == b"good"
        reply = await client.reply()
        assert reply.status == 400
        assert b"more than 32 headers" in reply.body, "not looked at before all were parsed"
        kept = tracemalloc.take_snapshot().filter_traces(
            (tracemalloc.Filter(True, "*/client_connection.py"),)
        )
        assert sum(trace.size for trace in kept.traces) < 2 * len(lines)
    finally:
        tracemalloc.stop()
    assert await client.rest() == b""


async def test_connections_that_are_late_together_are_all_told() -> None:
    async with start_gateway(header_timeout_seconds=0.1) as gateway:
        clients = [await gateway.client() for _ in range(100)]
        for client in clients:
            client.send(b"GET")
        assert {(await client.reply()).status for client in clients} == {408}


async def test_a_connection_that_has_ended_does_not_wait_for_the_garbage_collector(gateway: Gateway) -> None:
    """Thousands would, of a client that makes one for each request."""
    await gateway.echo()
    gc.collect()
    gc.disable()
    try:
        for raw in (
            request(b"good"),
            HEALTH,
            b"GET / HTTP/1.1\r\nHost: a\r\n: \r\n",
            request(b"bad")[:-1],
        ) * 5:
            client = await gateway.connect()
            client.send(raw)
            client.writer.write_eof()
            await client.rest()
            await client.closed()
        await asyncio.sleep(0)
        assert [each for each in gc.get_objects() if isinstance(each, ClientConnection)] == []
    finally:
        gc.enable()
