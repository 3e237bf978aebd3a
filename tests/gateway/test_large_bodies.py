"""Large bodies: whole on both ways, in pieces between which everyone else has a turn, and held no more than once."""

import asyncio
import gc
import hashlib
import random
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from moorage.turns import Turns
from tests.gateway.harness import ContainerConnection, Gateway, echo, request, start_gateway
from tests.gateway.test_dispatch import not_outstanding

MB = 1_000_000
LARGE = 12 * MB


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with start_gateway(max_body_bytes=LARGE, max_response_bytes=LARGE) as gateway:
        yield gateway


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3 * MB, LARGE])
async def test_what_comes_back_is_what_was_sent(gateway: Gateway, size: int) -> None:
    await gateway.echo()
    body = noise(size)
    client = await gateway.client()
    for _ in range(2):  # both connections are fit for another
        reply = await client.call(request(body))
        assert (reply.status, reply.headers["content-length"]) == (200, str(size))
        assert hashlib.sha256(reply.body).digest() == hashlib.sha256(body).digest()
    assert reply.headers["x-amzn-invoked-production-variant"] == "AllTraffic"


async def test_a_large_body_that_was_changed_on_its_way_reaches_nobody(gateway: Gateway) -> None:
    container = await gateway.echo()
    raw = bytearray(request(noise(3 * MB)))
    raw[-1] ^= 1
    reply = await gateway.call(bytes(raw))
    assert (reply.status, reply.error) == (403, "InvalidSignatureException")
    assert container.connections == 0


async def test_others_are_answered_between_its_pieces(gateway: Gateway) -> None:
    """The client has sent all of its body, and takes none of the reply: neither is in anybody's way."""
    await gateway.echo()
    await gateway.echo_as("other")
    slow = await gateway.client(receive_buffer=4096)
    slow.send(request(noise(LARGE)))
    for _ in range(20):
        reply = await gateway.call(request(b"small", "/endpoints/other/invocations"))
        assert reply.body == b"small"
    assert len((await slow.reply()).body) == LARGE


async def test_a_client_that_leaves_in_the_middle_of_its_reply(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client(receive_buffer=4096)
    client.send(request(noise(LARGE)))
    await client.reader.readuntil(b"\r\n\r\n")
    await client.closed()
    assert await gateway.is_alive()
    assert not_outstanding(gateway)


async def test_a_container_that_answers_before_it_has_read_the_request(gateway: Gateway) -> None:
    async def hasty(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.reply(b"too large for me", status=413)
        await connection.closed_by_gateway()

    container = await gateway.container(hasty)
    gateway.route(container)
    for number in range(1, 3):
        reply = await gateway.call(request(noise(LARGE)))
        assert reply.status == 424
        assert b"too large for me" in reply.body
        assert container.connections == number, "a connection in the middle of a request is not used again"


async def test_an_error_of_many_pieces_is_told_by_its_beginning(gateway: Gateway) -> None:
    async def wordy(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"oh no. " * (LARGE // 7), status=500)

    gateway.route(await gateway.container(wordy))
    reply = await gateway.call(request(b""))
    assert reply.status == 424
    assert b"oh no. oh no. " in reply.body


async def test_it_goes_to_another_instance_whole(gateway: Gateway) -> None:
    """The first one resets the connection without a word."""

    async def reset(connection: ContainerConnection) -> None:
        connection.reset()

    first, second = await gateway.container(reset), await gateway.container(echo)
    gateway.route(first, second)
    body = noise(3 * MB)
    for _ in range(8):
        reply = await gateway.call(request(body))
        assert (reply.status, hashlib.sha256(reply.body).digest()) == (200, hashlib.sha256(body).digest())


async def test_a_body_is_held_once(gateway: Gateway) -> None:
    """What the container got is let go of when its reply begins. The test's own copies are of its making."""

    async def generous(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        for _ in range(LARGE // MB):
            await connection.reader.readexactly(MB)
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        piece = bytes(MB)
        for _ in range(LARGE // MB):
            await connection.write(piece)

    gateway.route(await gateway.container(generous))
    raw = request(noise(LARGE))
    client = await gateway.client()
    gc.collect()
    tracemalloc.start()
    try:
        for at in range(0, len(raw), MB):
            client.send(raw[at : at + MB])
            await client.writer.drain()
        await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(LARGE // MB):
            await client.reader.readexactly(MB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * LARGE


async def test_turns_are_taken_in_order_and_survive_a_fault() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    turns, taken, done = Turns(loop), [], asyncio.Event()
    fault = RuntimeError("a fault")

    def fail() -> None:
        raise fault

    def take(name: str, times: int) -> None:
        taken.append(name)
        if times > 1:
            turns.wait(lambda: take(name, times - 1))
        elif name == "a":
            done.set()

    turns.wait(lambda: take("a", 3))
    turns.wait(fail)
    turns.wait(lambda: take("b", 2))
    await done.wait()
    assert taken == ["a", "b", "a", "b", "a"]
    assert reported == [fault]
    assert repr(turns) == "<Turns 0 waiting>"
