"""Requests and replies that are like one before are read without the parser: nobody may notice."""

import asyncio

from tests.gateway.harness import ContainerConnection, Gateway, head, request, signed

PATH = "/endpoints/echo/invocations"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


async def test_each_request_reaches_the_container_as_it_was_sent(gateway: Gateway) -> None:
    sent, seen = [], []

    async def note(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            seen.append(
                (message.headers.get(ATTRIBUTES.lower()), message.headers["content-type"], message.body)
            )
            await connection.reply(message.body)

    gateway.route(await gateway.container(note))
    client = await gateway.client()
    for number in range(12):
        attributes, content_type = f"c{number // 4}", ("text/csv", "text/plain")[number // 6]
        body = b"x" * 10 ** (number % 4)
        headers = {"Content-Type": content_type, ATTRIBUTES: attributes}
        sent.append((attributes, content_type, body))
        reply = await client.call(request(body, headers=headers))
        assert (reply.status, reply.body) == (200, body)
    assert seen == sent


async def test_each_reply_reaches_the_client_as_it_was_sent(gateway: Gateway) -> None:
    replies = [
        (200, b"a", {"Content-Type": "text/csv"}),
        (200, b"bb", {"Content-Type": "text/csv"}),
        (200, b"", {"Content-Type": "text/csv"}),
        (200, b"ccc", {"Content-Type": "text/plain", "Date": "Sat, 21 Nov 2026 12:00:00 GMT"}),
        (200, b"ccc", {"Content-Type": "text/plain", "Date": "Sat, 21 Nov 2026 12:00:01 GMT"}),
        (500, b"no", {"Content-Type": "text/plain"}),
        (500, b"no!", {"Content-Type": "text/plain"}),
        (201, b"yes", {"Content-Type": "text/plain"}),
        (200, b"d" * 20_000, {"Content-Type": "text/plain"}),
        (200, b"d" * 40_000, {"Content-Type": "text/plain"}),
        (200, b"e", {"Content-Type": "text/plain", "Connection": "keep-alive"}),
        (200, b"f", {"Content-Type": "text/plain", "Connection": "keep-alive"}),
    ]

    async def script(connection: ContainerConnection) -> None:
        for status, body, headers in replies:
            await connection.request()
            await connection.reply(body, status=status, headers=headers)
        await connection.request()

    container = await gateway.container(script)
    gateway.route(container)
    client = await gateway.client()
    for status, body, headers in replies:
        reply = await client.call(request(b"x"))
        assert reply.status == (424 if status == 500 else 200)
        if status == 500:
            assert f'"OriginalMessage":"{body.decode()}"'.encode() in reply.body.replace(b'": "', b'":"')
        else:
            assert (reply.body, reply.headers["content-type"]) == (body, headers["Content-Type"])
    assert container.connections == 1


async def test_a_stream_without_parts_has_none_however_often(gateway: Gateway) -> None:
    async def empty(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            await connection.reply(b"")

    gateway.route(await gateway.container(empty))
    client = await gateway.client()
    for _ in range(4):
        reply = await client.call(request(b"", "/endpoints/echo/invocations-response-stream"))
        assert (reply.status, reply.body) == (200, b"")


async def test_a_status_without_a_body_has_none_however_often(gateway: Gateway) -> None:
    lengths = iter(("0", "0", "2"))

    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            length = next(lengths)
            await connection.reply(b"ab"[: int(length)], status=204, headers={"Content-Length": length})

    gateway.route(await gateway.container(script))
    client = await gateway.client()
    for _ in range(3):
        reply = await client.call(request(b"x"))
        assert (reply.status, reply.body) == (200, b"")


async def test_a_wrong_signature_is_refused_however_well_the_head_is_known(gateway: Gateway) -> None:
    container = await gateway.echo()
    client = await gateway.client()
    for _ in range(3):
        assert (await client.call(request(b"[1]"))).status == 200
    assert (await client.call(request(b"[1]").replace(b"[1]", b"[2]"))).error == "InvalidSignatureException"
    assert (
        await client.call(request(b"[1]", extra={"Host": "elsewhere"}))
    ).error == "InvalidSignatureException"
    assert (await client.call(request(b"[1]"))).status == 200
    assert container.connections == 1


async def test_a_known_head_smuggles_nothing(gateway: Gateway) -> None:
    bodies: list[bytes] = []

    async def note(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            bodies.append(message.body)
            await connection.reply(message.body)

    gateway.route(await gateway.container(note))
    client = await gateway.client()
    for _ in range(3):
        assert (await client.call(request(b"good"))).status == 200
    lines = signed(PATH, b"evil")
    twice = head(PATH, {**lines, "Content-Length": "4", "content-length": "0"})
    client.send(twice + b"evil")
    assert (await client.reply()).status == 400
    assert await client.rest() == b""
    assert bodies == [b"good"] * 3


async def test_a_request_that_comes_in_two_halves_is_read_to_its_end(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    whole = request(b"halves")
    for cut in (None, None, 5, 200, len(whole) - 3, None):
        client.send(whole[:cut])
        if cut is not None:
            await asyncio.sleep(0)
            await client.writer.drain()
            assert await gateway.is_alive()  # by then the first half has been read
            client.send(whole[cut:])
        assert (await client.reply()).body == b"halves"
