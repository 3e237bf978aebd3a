"""Invocations into containers: which instance, what of the headers, and each way it can fail."""

import asyncio
import hashlib
import json
import random
import re
import socket
from collections import Counter
from typing import Any

import pytest

from moorage.gateway import front
from moorage.routing.table import route_document
from tests.gateway.harness import (
    Container,
    ContainerConnection,
    Gateway,
    Message,
    chunked,
    echo,
    request,
    start_gateway,
)

COMPILED = not str(front.__file__).endswith(".py")


def refused_port(gateway: Gateway) -> int:
    """A port on which nobody listens, and that nobody else can take meanwhile."""
    sock = gateway.stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    return port


def model_error(reply: Message) -> dict[str, Any]:
    assert (reply.status, reply.error) == (424, "ModelError")
    error: dict[str, Any] = json.loads(reply.body)
    assert set(error) == {"ErrorCode", "LogStreamArn", "Message", "OriginalMessage", "OriginalStatusCode"}
    assert (
        error["LogStreamArn"] == "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/echo"
    )
    return error


def not_outstanding(gateway: Gateway) -> bool:
    return " 0 outstanding" in repr(gateway.server.table)


# --- headers ------------------------------------------------------------------------------------------------


async def test_only_the_contract_reaches_the_container(gateway: Gateway) -> None:
    seen: list[Message] = []

    async def script(connection: ContainerConnection) -> None:
        seen.append(await connection.request())
        await connection.reply()

    container = await gateway.container(script)
    gateway.route(container)
    passed = {
        "Content-Type": "application/json; charset=utf-8",
        "Accept": "text/csv, */*;q=0.1",
        "X-Amzn-SageMaker-Custom-Attributes": "a=1,  b=2",
        "X-Amzn-SageMaker-Inference-Id": "id 1",
        "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
    }
    dropped = {
        "X-Amzn-SageMaker-Target-Variant": "AllTraffic",
        "X-Amzn-SageMaker-Unheard-Of": "x",
        "Cookie": "x=y",
        "X-Forwarded-For": "10.0.0.1",
        "User-Agent": "test",
        "X-Moorage-Account-Id": "999999999999",
        "Accept-Encoding": "gzip",
    }
    reply = await gateway.call(request(b"body", headers=passed, extra=dropped))
    assert reply.status == 200
    assert seen[0].start == "POST /invocations HTTP/1.1"
    assert seen[0].body == b"body"
    assert seen[0].headers == {
        **{name.lower(): value for name, value in passed.items()},
        "host": f"127.0.0.1:{container.port}",
        "content-length": "4",
        "x-amzn-sagemaker-forwarded-api": "InvokeEndpoint",
    }


async def test_only_the_contract_reaches_the_client(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(
            b"x",
            headers={
                "Content-Type": "text/csv",
                "x-amzn-sagemaker-custom-attributes": "trace=1,  2",
                "X-Amzn-SageMaker-New-Session-Id": "abc; Expires=2030-01-01T00:00:00Z",
                "X-Amzn-SageMaker-Closed-Session-Id": "def",
                "Server": "gunicorn",
                "Set-Cookie": "a=b",
                "X-Amzn-ErrorType": "Nonsense",
                "x-amzn-RequestId": "mine",
                "x-amzn-invoked-production-variant": "lie",
            },
        )

    gateway.route(await gateway.container(script))
    headers = (await gateway.call(request())).headers
    assert headers.pop("date")
    assert re.fullmatch(r"[0-9a-f-]{36}", headers.pop("x-amzn-requestid"))
    assert headers == {
        "content-length": "1",
        "content-type": "text/csv",
        "x-amzn-invoked-production-variant": "AllTraffic",
        "x-amzn-sagemaker-custom-attributes": "trace=1,  2",
        "x-amzn-sagemaker-new-session-id": "abc; Expires=2030-01-01T00:00:00Z",
        "x-amzn-sagemaker-closed-session-id": "def",
    }


async def test_a_session_may_be_announced_under_either_name(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(headers={"X-Amzn-SageMaker-Session-Id": "abc; Expires=2030-01-01T00:00:00Z"})

    gateway.route(await gateway.container(script))
    headers = (await gateway.call(request())).headers
    assert headers["x-amzn-sagemaker-new-session-id"] == "abc; Expires=2030-01-01T00:00:00Z"
    assert "x-amzn-sagemaker-session-id" not in headers


# --- replies that are odd but right ------------------------------------------------------------------------

RIGHT = {
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "201 with body": (b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"cd"), b"abcd"),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked(b"ab", trailers=b"Content-Type: text/evil\r\n"),
        b"ab",
    ),
    "chunked in capitals": (b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n" + chunked(b"ab"), b"ab"),
    "interim replies": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Type: a\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        b"ab",
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", b"ab"),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])
async def test_right_replies(gateway: Gateway, name: str, *, bytewise: bool) -> None:
    raw, body = RIGHT[name]

    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            for at in range(0, len(raw), 1 if bytewise else len(raw)):
                await connection.write(raw[at : at + 1] if bytewise else raw)
                await asyncio.sleep(0)

    container = await gateway.container(script)
    gateway.route(container)
    for _ in range(2):
        reply = await gateway.call(request())
        assert (reply.status, reply.body) == (200, body)
        assert "content-type" not in reply.headers
        assert reply.headers["content-length"] == str(len(body))
    assert container.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",
    ],
    ids=["HTTP/1.0", "Connection: close", "up to the end", "identity"],
)
async def test_replies_that_end_their_connection(gateway: Gateway, raw: bytes) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    container = await gateway.container(script)
    gateway.route(container)
    for _ in range(3):
        assert (await gateway.call(request())).body == b"ab"
    assert container.connections == 3


async def test_a_container_that_closes_after_each_reply_without_a_word(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.reply((await connection.request()).body)

    container = await gateway.container(script)
    gateway.route(container)
    client = await gateway.client()
    for number in range(50):
        assert (await client.call(request(b"%d" % number))).body == b"%d" % number


async def test_a_reply_that_comes_before_the_body_was_read(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.reply(b"no", status=400)
        await connection.closed_by_gateway()

    async with start_gateway(max_body_bytes=32 * 1024 * 1024) as gateway:
        container = await gateway.container(script)
        gateway.route(container)
        for connections in (1, 2):
            error = model_error(await gateway.call(request(bytes(16 * 1024 * 1024))))
            assert error["OriginalStatusCode"] == 400
            assert container.connections == connections  # not used again: the request is still in it


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"garbage", b"HTTP/1.1 2"]
)
@pytest.mark.parametrize("together", [True, False])
async def test_a_reply_nobody_asked_for_is_given_to_nobody(
    gateway: Gateway, extra: bytes, *, together: bool
) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
        if together:
            await connection.write(good + extra)
        else:
            await connection.write(good)
            await connection.write(extra)
        await connection.closed_by_gateway()

    container = await gateway.container(script)
    gateway.route(container)
    assert (await gateway.call(request())).body == b"good"
    assert await container.ended.get() == 1  # the gateway has closed it
    assert (await gateway.call(request())).body == b"good"
    assert container.connections == 2


# --- replies that fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (400, "CLIENT_ERROR_FROM_MODEL", "client"),
        (404, "CLIENT_ERROR_FROM_MODEL", "client"),
        (499, "CLIENT_ERROR_FROM_MODEL", "client"),
        (500, "INTERNAL_FAILURE_FROM_MODEL", "server"),
        (503, "INTERNAL_FAILURE_FROM_MODEL", "server"),
        (599, "INTERNAL_FAILURE_FROM_MODEL", "server"),
    ],
)
async def test_an_error_of_the_container_is_a_model_error(
    gateway: Gateway, status: int, code: str, fault: str
) -> None:
    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            await connection.reply("Nö.".encode(), status=status)

    container = await gateway.container(script)
    gateway.route(container)
    client = await gateway.client()
    for _ in range(2):
        error = model_error(await client.call(request(b"x")))
        assert error["OriginalStatusCode"] == status
        assert error["OriginalMessage"] == "Nö."
        assert error["ErrorCode"] == code
        assert error["Message"].startswith(
            f'Received {fault} error ({status}) from primary with message "Nö.". See '
        )
    assert container.connections == 1  # both connections live on


async def test_long_errors_are_cut_to_2048_characters(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply("é".encode() * 5000 + b"\xff", status=500)

    gateway.route(await gateway.container(script))
    error = model_error(await gateway.call(request()))
    assert error["OriginalMessage"] == "é" * 2048
    assert len(error["Message"]) <= 2048
    assert error["Message"].endswith("in account 000000000000 for more information.")


BROKEN = {
    "silence, then the end": (b"", 0),
    "half a head": (b"HTTP/1.1 200 OK\r\nConte", 0),
    "garbage": (b"\x00\x01\x02 hello\r\n\r\n", 0),
    "interim only": (b"HTTP/1.1 100 Continue\r\n\r\n", 0),
    "an upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 0),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab", 200),
    "half a chunk": (b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 202),
    "no last chunk": (b"HTTP/1.1 500 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 500),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nab\r\n", 200),
    "half a body of an error": (b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nab", 503),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in BROKEN for how in ("close", "reset") if BROKEN[name][0] or how == "close"],
)
async def test_a_reply_that_breaks_off_is_a_model_error_and_not_tried_again(
    gateway: Gateway, name: str, how: str
) -> None:
    raw, status = BROKEN[name]

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)
        if how == "reset":
            # the bytes have left before the reset only once the other side has had its turn
            await asyncio.sleep(0.02)
            connection.reset()

    first, second = await gateway.container(script), await gateway.container(script)
    gateway.route(first, second)
    error = model_error(await gateway.call(request(b"x")))
    assert error["OriginalStatusCode"] == status
    assert error["ErrorCode"] == "INTERNAL_FAILURE_FROM_MODEL"
    if status:
        assert (
            f"Received server error ({status}) from primary and could not load the entire" in error["Message"]
        )
    else:
        assert "could not get a response from the echo endpoint" in error["Message"]
    assert first.connections + second.connections == 1
    assert not_outstanding(gateway)


async def test_a_container_that_is_too_slow_is_cut_off() -> None:
    closed = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        if connection.number == 2:
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
        await connection.closed_by_gateway()
        closed.set()

    async with start_gateway(invocation_timeout_seconds=0.2) as gateway:
        gateway.route(await gateway.container(script))
        for _ in range(2):
            error = model_error(await gateway.call(request(b"x")))
            assert error["OriginalStatusCode"] == 0
            assert error["OriginalMessage"].startswith(
                "Your invocation timed out while waiting for a response"
            )
            assert error["Message"].startswith(
                'Received server error (0) from primary with message "Your invocation'
            )
            await closed.wait()
            closed.clear()


async def test_a_container_that_never_reads_is_cut_off() -> None:
    async def script(connection: ContainerConnection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with start_gateway(invocation_timeout_seconds=0.2, max_body_bytes=32 * 1024 * 1024) as gateway:
        gateway.route(await gateway.container(script))
        error = model_error(await gateway.call(request(bytes(16 * 1024 * 1024))))
        assert error["OriginalStatusCode"] == 0


# --- instances that cannot be reached ----------------------------------------------------------------------


async def test_an_instance_that_refuses_is_passed_over(gateway: Gateway) -> None:
    good = await gateway.container(echo)
    gateway.route(refused_port(gateway), refused_port(gateway), good, refused_port(gateway))
    client = await gateway.client()
    for number in range(20):
        assert (await client.call(request(b"%d" % number))).body == b"%d" % number


async def test_no_instance_reachable_is_service_unavailable(gateway: Gateway) -> None:
    gateway.route(refused_port(gateway), refused_port(gateway))
    reply = await gateway.call(request())
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert json.loads(reply.body)["Message"].startswith(
        "A transient exception occurred while retrieving variant instances. Please try again. "
    )


async def test_no_instance_yet_is_model_not_ready(gateway: Gateway) -> None:
    gateway.route(provisioning=True)
    reply = await gateway.call(request())
    assert (reply.status, reply.error) == (429, "ModelNotReadyException")


async def reset_unread(connection: ContainerConnection) -> None:
    connection.reset()


async def test_a_reset_before_any_byte_is_tried_on_one_other_instance(gateway: Gateway) -> None:
    good = await gateway.container(echo)
    bad = await gateway.container(reset_unread)
    gateway.route(good, bad)
    client = await gateway.client()
    for number in range(30):
        assert (await client.call(request(b"%d" % number))).body == b"%d" % number
    assert bad.connections > 0


async def test_resets_everywhere_are_a_model_error(gateway: Gateway) -> None:
    containers = [await gateway.container(reset_unread) for _ in range(5)]
    gateway.route(*containers)
    error = model_error(await gateway.call(request(b"x")))
    assert error["OriginalStatusCode"] == 0
    assert "its connection was reset" in error["Message"]
    assert sum(container.connections for container in containers) == 2  # an attempt and another one, no more


async def test_a_reset_of_the_only_instance_is_a_model_error(gateway: Gateway) -> None:
    gateway.route(await gateway.container(reset_unread))
    assert model_error(await gateway.call(request(b"x")))["OriginalStatusCode"] == 0


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_reused_connection_that_had_died_is_replaced(gateway: Gateway, how: str) -> None:
    """The container closed it while idle; the gateway has not seen that yet when it writes the next request."""
    seen = []

    async def script(connection: ContainerConnection) -> None:
        while True:
            seen.append((await connection.request()).body)
            await connection.reply(seen[-1])
            if connection.number == 1:
                break
        if how == "reset":
            connection.reset()

    container = await gateway.container(script)
    gateway.route(container)
    client = await gateway.client()
    client.send(
        request(b"1") + request(b"2")
    )  # the second is sent on before the gateway looks for an end of file
    assert (await client.reply()).body == b"1"
    assert (await client.reply()).body == b"2"
    assert seen == [b"1", b"2"]
    assert container.connections == 2


async def test_a_busy_reused_connection_is_not_tried_again(gateway: Gateway) -> None:
    """Here the container did read the request, so that nobody knows what it did with it."""
    seen = []

    async def script(connection: ContainerConnection) -> None:
        seen.append(await connection.request())
        await connection.reply()
        seen.append(await connection.request())

    gateway.route(await gateway.container(script))
    client = await gateway.client()
    assert (await client.call(request(b"1"))).status == 200
    assert model_error(await client.call(request(b"2")))["OriginalStatusCode"] == 0
    assert len(seen) == 2


@pytest.mark.skipif(COMPILED, reason="the methods of a compiled class cannot be replaced")
async def test_a_retry_sees_the_routes_as_they_are_then(gateway: Gateway) -> None:
    old = refused_port(gateway)
    good = await gateway.container(echo)
    gateway.route(gateway.instance(old, name="i-1"))
    client = await gateway.client()
    client.send(request(b"x"))
    pool = gateway.front.pool_of
    seen: list[int] = []

    def watched(instance: Any) -> Any:
        if not seen:  # the container is restarted between the choice and the connection
            gateway.route(gateway.instance(good, name="i-1", generation=2))
        seen.append(instance.generation)
        return pool(instance)

    gateway.front.pool_of = watched  # type: ignore[method-assign]
    assert (await client.reply()).body == b"x"
    assert seen == [1, 2]


# --- the client goes away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["waiting", "head", "body"])
async def test_a_client_that_leaves_ends_the_work(gateway: Gateway, stage: str) -> None:
    busy, closed = asyncio.Event(), asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        if stage != "waiting":
            part = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
            await connection.write(part if stage == "head" else part + b"\r\nab")
        busy.set()
        await connection.closed_by_gateway()
        closed.set()

    gateway.route(await gateway.container(script))
    client = await gateway.client()
    client.send(request(b"x"))
    await busy.wait()
    assert " 1 outstanding" in repr(gateway.server.table)
    client.close()
    await asyncio.wait_for(closed.wait(), 5)
    assert not_outstanding(gateway)


async def test_a_client_that_leaves_while_connecting_ends_the_attempt() -> None:
    """A listener whose queue is full lets nobody in."""
    async with start_gateway(connect_timeout_seconds=60) as gateway:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        blockers = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            blockers.append(sock)
        gateway.route(full.getsockname()[1])
        client = await gateway.client()
        client.send(request(b"x"))
        while " 1 outstanding" not in repr(gateway.server.table):
            assert await gateway.is_alive()
        client.close()
        while not not_outstanding(gateway):
            assert await gateway.is_alive()
        for sock in (full, *blockers):
            sock.close()


async def test_a_connection_not_accepted_in_time_is_tried_elsewhere() -> None:
    async with start_gateway(connect_timeout_seconds=0.1) as gateway:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        blockers = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            blockers.append(sock)
        good = await gateway.container(echo)
        gateway.route(full.getsockname()[1], good)
        for _ in range(6):
            assert (await gateway.call(request(b"x"))).body == b"x"
        for sock in (full, *blockers):
            sock.close()


async def test_more_connections_than_a_container_has_room_for_are_made_in_the_end() -> None:
    """The kernel drops what does not fit into the queue of its listener, and tries again after a second."""
    async with start_gateway() as gateway:
        listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        container = Container(echo)
        await gateway.listen(container, lambda cb: asyncio.start_server(cb, sock=listener, backlog=8))
        gateway.route(listener.getsockname()[1])
        replies = await asyncio.gather(*(gateway.call(request(b"x")) for _ in range(24)))
        assert [reply.body for reply in replies] == [b"x"] * 24


# --- choosing ----------------------------------------------------------------------------------------------


async def named(gateway: Gateway, name: str, weight: float) -> dict[str, Any]:
    """A variant whose only instance answers with the variant's name."""

    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            await connection.reply(name.encode())

    container = await gateway.container(script)
    return {
        "name": name,
        "weight": weight,
        "container_hostname": "primary",
        "instances": [gateway.instance(container)],
    }


async def test_weights_divide_the_traffic(gateway: Gateway) -> None:
    gateway.route(variants=[await named(gateway, *each) for each in (("A", 3.0), ("B", 1.0), ("C", 0.0))])
    client = await gateway.client()
    seen: Counter[bytes] = Counter()
    for _ in range(200):
        reply = await client.call(request())
        assert reply.headers["x-amzn-invoked-production-variant"].encode() == reply.body
        seen[reply.body] += 1
    assert set(seen) == {b"A", b"B"}
    assert 110 < seen[b"A"] < 190  # 150 expected, more than six standard deviations either way


async def test_target_variant_overrides_weights(gateway: Gateway) -> None:
    gateway.route(variants=[await named(gateway, *each) for each in (("A", 1.0), ("C", 0.0))])
    reply = await gateway.call(request(headers={"X-Amzn-SageMaker-Target-Variant": "C"}))
    assert reply.body == b"C"
    reply = await gateway.call(request(headers={"X-Amzn-SageMaker-Target-Variant": "D"}))
    assert (reply.status, reply.error) == (400, "ValidationError")
    assert "Variant D not found" in json.loads(reply.body)["Message"]


async def test_the_least_busy_instance_is_chosen(gateway: Gateway) -> None:
    arrived: asyncio.Queue[int] = asyncio.Queue()
    go = asyncio.Event()
    containers = []
    for number in range(4):

        async def script(connection: ContainerConnection, number: int = number) -> None:
            while True:
                await connection.request()
                arrived.put_nowait(number)
                await go.wait()
                await connection.reply()

        containers.append(await gateway.container(script))
    gateway.route(*containers)
    clients = [await gateway.client() for _ in range(12)]
    for client in clients:
        client.send(request(b"x"))
    assert Counter([await arrived.get() for _ in clients]) == dict.fromkeys(range(4), 3)
    assert " 12 outstanding" in repr(gateway.server.table)
    go.set()
    for client in clients:
        assert (await client.reply()).status == 200
    assert not_outstanding(gateway)


async def test_a_retired_instance_is_drained_and_reported(gateway: Gateway) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        message = await connection.request()
        arrived.set()
        await go.wait()
        await connection.reply(message.body)
        await connection.closed_by_gateway()

    old, new = await gateway.container(script), await gateway.container(echo)
    gateway.route(gateway.instance(old, name="i-old"))
    client = await gateway.client()
    client.send(request(b"before"))
    await arrived.wait()
    gateway.route(gateway.instance(new, name="i-new"))
    assert (await gateway.call(request(b"after"))).body == b"after"
    assert not gateway.server.table.is_drained("i-old")
    go.set()
    assert (await client.reply()).body == b"before"
    assert gateway.server.table.is_drained("i-old")
    gateway.front.close_stale_connections()
    assert await old.ended.get() == 1  # its idle connection has been closed too


# --- refused before any container ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (
            "/endpoints/none/invocations",
            "ValidationError",
            "Endpoint none of account 000000000000 not found.",
        ),
        (
            "/endpoints//invocations",
            "ValidationError",
            "1 validation error detected: Value '' at 'endpointName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*",
        ),
        (
            "/endpoints/bad%20name%21%2Fx/invocations",
            "ValidationError",
            "1 validation error detected: Value 'bad name!/x' at 'endpointName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*",
        ),
        (
            "/endpoints/echo/something",
            "UnknownOperationException",
            "There is no operation POST /endpoints/echo/something of the service sagemaker.",
        ),
    ],
)
async def test_what_no_endpoint_answers(gateway: Gateway, path: str, error: str, message: str) -> None:
    container = await gateway.echo()
    reply = await gateway.call(request(b"x", path))
    assert (reply.status, reply.error) == (400, error)
    body = json.loads(reply.body)
    assert (body.get("Message") or body.get("message")) == message
    assert container.connections == 0


async def test_a_percent_encoded_endpoint_name(gateway: Gateway) -> None:
    gateway.route(await gateway.container(echo), name="my-endpoint")
    assert (await gateway.call(request(b"x", "/endpoints/my%2Dendpoint/invocations"))).body == b"x"


@pytest.mark.parametrize(
    "header", ["Target-Model", "Inference-Component", "Target-Container-Hostname", "Enable-Explanations"]
)
async def test_what_this_endpoint_does_not_have_is_refused(gateway: Gateway, header: str) -> None:
    container = await gateway.echo()
    reply = await gateway.call(request(headers={f"X-Amzn-SageMaker-{header}": "x"}))
    assert (reply.status, reply.error) == (400, "ValidationError")
    assert container.connections == 0


async def test_an_asynchronous_endpoint_takes_no_synchronous_call(gateway: Gateway) -> None:
    gateway.route(await gateway.container(echo), asynchronous=True)
    reply = await gateway.call(request())
    assert (reply.status, reply.error) == (400, "ValidationError")


async def test_before_the_first_routing_table_the_dependency_is_named() -> None:
    async with start_gateway() as gateway:
        gateway.server.table.complete = False
        reply = await gateway.call(request())
        assert (reply.status, reply.error) == (530, "InternalDependencyException")
        health = await gateway.call(b"GET /_moorage/health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (health.status, json.loads(health.body)) == (503, {"status": "starting"})


async def test_what_is_not_signed_rightly_reaches_no_container(gateway: Gateway) -> None:
    container = await gateway.echo()
    whole = request(b"body", headers={"X-Amzn-SageMaker-Custom-Attributes": "a"})
    for tampered in (
        whole.replace(b"body", b"Body"),
        whole.replace(b"Custom-Attributes: a", b"Custom-Attributes: b"),
        whole.replace(b"/echo/", b"/ecHo/"),
        whole.replace(b"/invocations HTTP", b"/invocations?x=1 HTTP"),
        whole.replace(b"Host: localhost:8080", b"Host: localhost:8081"),
        whole.replace(b"POST", b"PUT", 1),
    ):
        assert tampered != whole
        reply = await gateway.call(tampered)
        assert reply.status in (400, 403)
        assert reply.error in ("InvalidSignatureException", "UnknownOperationException")
    assert container.connections == 0


async def test_a_signature_for_another_service_is_refused(gateway: Gateway) -> None:
    reply = await gateway.call(request(b"x", service="execute-api"))
    assert (reply.status, reply.error) == (403, "InvalidSignatureException")
    assert json.loads(reply.body) == {
        "message": "Credential should be scoped to correct service: 'sagemaker'. "
    }


async def test_an_unsigned_payload_is_refused(gateway: Gateway) -> None:
    await gateway.echo()
    reply = await gateway.call(request(b"x", headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}))
    assert (reply.status, reply.error) == (403, "InvalidSignatureException")
    assert "not accepted without TLS" in json.loads(reply.body)["message"]


async def test_an_unsigned_payload_is_accepted_if_so_set() -> None:
    async with start_gateway(allow_unsigned_payload=True) as gateway:
        await gateway.echo()
        whole = request(b"x", headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
        assert (await gateway.call(whole[:-1] + b"y")).body == b"y"


async def test_a_fault_in_one_expiry_does_not_keep_the_others_from_theirs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_gateway(invocation_timeout_seconds=0.2) as gateway:

        async def silent(connection: ContainerConnection) -> None:
            await connection.request()
            await connection.closed_by_gateway()

        gateway.route(await gateway.container(silent))

        class Faulty:
            deadline = 0.0

            def expire(self) -> None:
                gateway.front.timed_calls.discard(self)  # type: ignore[arg-type]
                raise RuntimeError("a bug")

        gateway.front.timed_calls.add(Faulty())  # type: ignore[arg-type]
        assert (await gateway.call(request())).status == 424
    assert "a bug" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_large_body_arrives_whole_also_at_the_second_try(framing: str) -> None:
    """It is never joined, and must be there again when a container had closed its idle connection."""
    body = random.Random(framing).randbytes(1_500_000)

    async def script(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            await connection.reply(hashlib.sha256(message.body).hexdigest().encode())
            if connection.number == 1:
                return

    async with start_gateway(max_body_bytes=2_000_000) as gateway:
        container = await gateway.container(script)
        gateway.route(container)
        client = await gateway.client()
        for _ in range(3):
            whole = request(body)
            if framing == "chunks":
                lines = whole.removesuffix(body).replace(
                    b"Content-Length: 1500000", b"Transfer-Encoding: chunked"
                )
                pieces = [body[at : at + 70_001] for at in range(0, len(body), 70_001)]
                whole = lines + chunked(*pieces)
            client.send(whole)
            reply = await client.reply()
            assert (reply.status, reply.body.decode()) == (200, hashlib.sha256(body).hexdigest())
        assert container.connections == 2


ARN = "arn%3Aaws%3Asagemaker%3Aus-east-1%3A000000000000%3Aendpoint%2F"


@pytest.mark.parametrize("name", ["echo", ARN + "echo", ARN + "Echo", ARN.replace("%3A", ":") + "echo"])
async def test_an_endpoint_is_invoked_by_its_name_or_its_arn(gateway: Gateway, name: str) -> None:
    await gateway.echo()
    for _ in range(2):
        reply = await gateway.call(request(b"hello", f"/endpoints/{name}/invocations"))
        assert (reply.status, reply.body) == (200, b"hello")


async def test_an_arn_of_no_endpoint_is_told_by_account_and_name(gateway: Gateway) -> None:
    await gateway.echo()
    for name in (ARN + "Other", ARN.replace("east", "west") + "echo"):
        reply = await gateway.call(request(b"hello", f"/endpoints/{name}/invocations"))
        assert (reply.status, reply.error) == (400, "ValidationError")
        assert b" of account 000000000000 not found." in reply.body


async def test_who_asks_for_an_endpoint_of_another_account_is_not_told_whether_it_is_there(
    gateway: Gateway,
) -> None:
    container = await gateway.container(echo)
    variant = {
        "name": "AllTraffic",
        "weight": 1.0,
        "container_hostname": "primary",
        "instances": [gateway.instance(container)],
    }
    gateway.server.table.put(
        route_document(account_id="111122223333", name="echo", region="us-east-1", variants=[variant])
    )
    texts = set()
    for name in ("echo", "other"):
        path = f"/endpoints/{ARN.replace('000000000000', '111122223333')}{name}/invocations"
        reply = await gateway.call(request(b"hello", path))
        assert (reply.status, reply.error) == (403, "AccessDeniedException")
        texts.add(reply.body.replace(name.encode(), b"NAME"))
    assert len(texts) == 1
    assert container.connections == 0
