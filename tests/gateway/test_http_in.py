"""HTTP/1.1 as clients speak it, rightly and wrongly."""

import asyncio
import json

import pytest

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


async def test_a_connection_carries_many_requests(gateway: Gateway) -> None:
    container = await gateway.echo()
    client = await gateway.client()
    for body in (b"one", b"", b"three" * 1000):
        reply = await client.call(request(body))
        assert (reply.status, reply.body) == (200, body)
        assert "connection" not in reply.headers
    assert container.connections == 1


async def test_a_reply_carries_its_id_date_and_variant(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    first, second = await client.call(request(b"x")), await client.call(request(b"x"))
    assert first.headers["x-amzn-requestid"] != second.headers["x-amzn-requestid"]
    assert first.headers["date"].endswith("GMT")
    assert first.headers["x-amzn-invoked-production-variant"] == "AllTraffic"


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    bodies = [b"%d" % number * 50 for number in range(12)]
    # Requests that are answered at once stand between those that a container answers.
    client.send(b"".join(request(body) + HEALTH for body in bodies))
    for body in bodies:
        assert (await client.reply()).body == body
        assert json.loads((await client.reply()).body) == {"status": "ready"}


async def test_thousands_of_pipelined_requests_do_not_nest(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(HEALTH * 3000)
    for _ in range(3000):
        assert (await client.reply()).status == 200


@pytest.mark.parametrize("body", ["length", "chunks"])
async def test_a_request_may_be_split_at_any_byte(gateway: Gateway, body: str) -> None:
    await gateway.echo()
    if body == "length":
        vector = request(b'{"x":1}')
    else:
        vector = head(PATH, {**signed(body=b'{"x":1}'), **CHUNKED}) + chunked(b'{"x"', b":1}")
    client = await gateway.client()
    for position in range(1, len(vector)):
        client.send(vector[:position])
        await asyncio.sleep(0)  # the gateway runs in this loop and may read the first part
        client.send(vector[position:])
        assert (await client.reply()).body == b'{"x":1}', position


async def test_a_request_may_arrive_byte_by_byte(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    for byte in request(b"slow"):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.reply()).body == b"slow"


async def test_chunked_bodies_with_extensions_and_trailers(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    start = head(PATH, {**signed(body=b"abcdef"), **CHUNKED})
    client.send(start + b"3;name=value\r\nabc\r\n3\r\ndef\r\n0\r\nX-Trailer: 1\r\nHost: other\r\n\r\n")
    assert (await client.reply()).body == b"abcdef"
    assert (await client.call(request(b"next"))).body == b"next"


async def test_expect_100_continue_is_answered_before_the_body(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    client.send(head(PATH, {**signed(body=b"later"), "Expect": "100-Continue", "Content-Length": "5"}))
    assert (await client.reply()).start == "HTTP/1.1 100 Continue"
    assert (await client.call(b"later")).body == b"later"
    assert (await client.call(request(b"next"))).body == b"next"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "100001"}, 413),
        ({"Content-Length": "5", "Authorization": "nonsense"}, 403),
    ],
)
async def test_expect_100_continue_is_refused_by_the_head(
    gateway: Gateway, headers: dict[str, str], status: int
) -> None:
    client = await gateway.client()
    client.send(head(PATH, {**signed(body=b"later"), "Expect": "100-continue", **headers}))
    reply = await client.reply()
    assert reply.status == status
    assert reply.headers["connection"] == "close"
    assert await client.rest() == b""


async def test_http_1_0_is_answered_and_closed(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    reply = await client.call(request(b"old", version="1.0", extra={"Connection": "keep-alive"}))
    assert (reply.status, reply.body, reply.headers["connection"]) == (200, b"old", "close")
    assert await client.rest() == b""


async def test_http_1_0_expects_no_interim_reply(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    client.send(request(b"old", version="1.0", extra={"Expect": "100-continue"}))
    assert (await client.reply()).status == 200


async def test_connection_close_is_honoured(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    reply = await client.call(request(b"last", extra={"Connection": "close"}))
    assert (reply.body, reply.headers["connection"]) == (b"last", "close")
    assert await client.rest() == b""


async def test_head_replies_have_no_body(gateway: Gateway) -> None:
    client = await gateway.client()
    for start in (
        HEALTH,
        head("/bucket/key", signed("/bucket/key", method="GET")),
        head(PATH, {"Host": "a"}),
    ):
        client.send(b"HEAD" + start[start.index(b" ") :])
        reply = await client.reply(has_body=False)
        assert int(reply.headers["content-length"]) > 0
    assert (await client.call(HEALTH)).status == 200  # nothing was left between


async def test_header_names_in_any_case_and_order(gateway: Gateway) -> None:
    await gateway.echo()
    headers = {**signed(body=b"x", headers={"X-Amzn-SageMaker-Inference-Id": "i"}), "Content-Length": "1"}
    for spelled in (str.upper, str.lower, str.swapcase):
        shuffled = {spelled(name): value for name, value in reversed(headers.items())}
        assert (await gateway.call(head(PATH, shuffled) + b"x")).status == 200


async def test_space_around_header_values_is_not_theirs(gateway: Gateway) -> None:
    await gateway.echo()
    headers = {**signed(body=b"x"), "Content-Length": "1"}
    spaced = {name: f" \t {value} \t " for name, value in headers.items()}
    assert (await gateway.call(head(PATH, spaced) + b"x")).status == 200


async def test_repeated_headers_are_joined_by_commas(gateway: Gateway) -> None:
    seen = []

    async def script(connection: ContainerConnection) -> None:
        seen.append((await connection.request()).headers["accept"])
        await connection.reply()

    gateway.route(await gateway.container(script))
    lines = signed(headers={"Accept": "text/csv,application/json"})
    del lines["Accept"]
    raw = head(PATH, lines).removesuffix(b"\r\n")
    raw += b"Accept: text/csv \r\nContent-Length: 0\r\nAccept: application/json\r\n\r\n"
    assert (await gateway.call(raw)).status == 200
    assert seen == ["text/csv,application/json"]


@pytest.mark.parametrize("name", ["Host", "Authorization", "X-Amz-Date"])
async def test_headers_that_decide_must_not_be_repeated(gateway: Gateway, name: str) -> None:
    lines = signed()
    reply = await gateway.call(
        head(PATH, lines).removesuffix(b"\r\n") + f"{name}: {lines[name]}\r\n\r\n".encode()
    )
    assert (reply.status, reply.error) == (400, "MalformedHttpRequestException")
    assert name.lower() in json.loads(reply.body)["message"]


@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
async def test_absolute_form_targets(gateway: Gateway, scheme: str) -> None:
    await gateway.echo()
    raw = request(b"x")
    assert (await gateway.call(raw.replace(b" /", f" {scheme}://localhost:8080/".encode(), 1))).body == b"x"


async def test_an_absolute_form_target_without_a_path_is_the_root(gateway: Gateway) -> None:
    raw = request(b"{}", "/", headers={"X-Amz-Target": "SageMaker.ListEndpoints"})
    reply = await gateway.call(raw.replace(b" / ", b" http://localhost:8080 ", 1))
    assert reply.error == "ServiceUnavailable"  # signed rightly; there is no controller


CHUNKS = b"POST /_moorage/health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = {
    "conflicting lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "repeated lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "length, then chunked": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding not known": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding spelled wrong": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding identity": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunk size no number": CHUNKS + b"xyz\r\n",
    "chunk size with 0x": CHUNKS + b"0x1\r\na\r\n",
    "chunk ends in LF": CHUNKS + b"1\na\n0\n\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in headers": b"GET / HTTP/1.1\r\nHost: a\nX-Smuggled: b\r\n\r\n",
    "bare CR in headers": b"GET / HTTP/1.1\r\nHost: a\rX-Smuggled: b\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "control character": b"GET / HTTP/1.1\r\nHost: a\x01b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "header without name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "header name not ASCII": b"GET / HTTP/1.1\r\nHost: a\r\nX-\xff: b\r\n\r\n",
    "target not ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "version 3.1": b"GET / HTTP/3.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": bytes.fromhex("16030102000100") + b"\x01\xfc\x03\x03" + bytes(range(256)),
    "random bytes": bytes(range(256)) * 4,
    "method not known": b"FETCH / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "CONNECT to a path": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "CONNECT to a URL": b"CONNECT http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "target of another scheme": b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "upgrade with body": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 3\r\n\r\nabc",
    "giant header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    "giant header without end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000,
    "giant target": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "giant target without end": b"GET /" + b"x" * 200_000,
    "too many headers": b"GET / HTTP/1.1\r\nHost: a\r\n"
    + b"".join(b"X-%d: a\r\n" % number for number in range(32))
    + b"\r\n",
    "too often the same header": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 40 + b"\r\n",
    "giant trailer": CHUNKS + b"1\r\na\r\n0\r\nX: " + b"x" * 400_000,
    "giant chunk extension": CHUNKS + b"1\r\na\r\n1;" + b"x" * 400_000,
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_what_is_not_http_is_refused_and_the_connection_closed(gateway: Gateway, name: str) -> None:
    client = await gateway.client()
    client.send(GARBAGE[name])
    reply = await client.reply()
    assert reply.status == 400
    assert reply.headers["connection"] == "close"
    if reply.headers["content-type"] == "application/json":
        assert reply.error == "MalformedHttpRequestException"
        assert json.loads(reply.body)["message"]
    else:
        assert b"<Error><Code>InvalidRequest</Code><Message>" in reply.body
    assert await client.rest() == b""
    assert await gateway.is_alive()


async def test_a_length_of_many_digits_is_a_number(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(
        b"POST /endpoints/a/invocations HTTP/1.1\r\nHost: a\r\nContent-Length: "
        + b"0" * 5000
        + b"3\r\n\r\nabc"
    )
    assert (await client.reply()).status == 403


async def test_an_upgrade_behind_a_refused_request_is_dropped(gateway: Gateway) -> None:
    client = await gateway.client()
    refused = CHUNKS.replace(b"/_moorage/health", b"/endpoints/a/invocations") + b"1\r\na\r\n0\r\n\r\n"
    client.send(refused + b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.reply()).status == 403
    assert await client.rest() == b""
    assert await gateway.is_alive()


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_behind_a_good_request_does_not_harm_it(gateway: Gateway, name: str) -> None:
    await gateway.echo()
    client = await gateway.client()
    client.send(request(b"good") + request(b"good too") + GARBAGE[name])
    assert (await client.reply()).body == b"good"
    assert (await client.reply()).body == b"good too"
    assert (await client.reply()).status == 400
    assert await client.rest() == b""


@pytest.mark.parametrize("cut", ["in the head", "in the body", "in the chunks"])
async def test_a_request_broken_off_is_refused(gateway: Gateway, cut: str) -> None:
    await gateway.echo()
    whole = request(b"x" * 100)
    if cut == "in the head":
        part = whole[:50]
    elif cut == "in the body":
        part = whole[:-1]
    else:
        part = head(PATH, {**signed(body=b"x"), **CHUNKED}) + b"5\r\nx"
    client = await gateway.client()
    client.send(part)
    client.writer.write_eof()
    reply = await client.reply()
    assert (reply.status, reply.error) == (400, "MalformedHttpRequestException")
    assert await client.rest() == b""


async def test_a_body_longer_than_declared_is_no_part_of_the_request(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    client.send(request(b"body") + b"and more")
    assert (await client.reply()).body == b"body"
    assert (await client.reply()).status == 400
    assert await client.rest() == b""


async def test_what_follows_a_last_request_is_dropped(gateway: Gateway) -> None:
    await gateway.echo()
    client = await gateway.client()
    client.send(request(b"last", extra={"Connection": "close"}) + HEALTH)
    assert (await client.reply()).body == b"last"
    await client.rest()
    client = await gateway.client()
    client.send(HEALTH.replace(b"Host", b"Connection: close\r\nHost") + HEALTH)
    assert (await client.reply()).status == 200
    assert await client.rest() == b""


async def test_empty_lines_between_requests_are_ignored(gateway: Gateway) -> None:
    client = await gateway.client()
    for _ in range(3):
        assert (await client.call(b"\r\n\r\n" + HEALTH + b"\r\n")).status == 200


async def test_a_refused_request_with_a_short_body_keeps_the_connection(gateway: Gateway) -> None:
    client = await gateway.client()
    reply = await client.call(head(PATH, {"Host": "a", "Content-Length": "3"}) + b"abc")
    assert (reply.status, reply.body) == (403, b'{"message": "Missing Authentication Token"}')
    assert "connection" not in reply.headers
    assert (await client.call(HEALTH)).status == 200


async def test_a_refused_request_with_a_long_body_is_answered_at_once(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(head(PATH, {"Host": "a", "Content-Length": "10000000"}) + b"x" * 1000)
    assert (await client.reply()).status == 403
    client.send(b"x" * 1_000_000)  # is read and dropped, so that no reset overtakes the reply
    assert await client.rest() == b""


async def test_a_drain_answers_what_has_arrived_and_closes() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        message = await connection.request()
        arrived.set()
        await go.wait()
        await connection.reply(message.body)
        await echo(connection)

    async with start_gateway() as gateway:
        gateway.route(await gateway.container(script))
        idle, busy, half = [await gateway.client() for _ in range(3)]
        assert (await idle.call(HEALTH)).status == 200
        busy.send(request(b"first") + request(b"second"))
        half.send(HEALTH[:10])
        await arrived.wait()

        async def clients() -> None:
            assert await idle.rest() == b""  # closed at once: the drain has begun
            half.send(HEALTH[10:])
            assert (await half.reply()).headers["connection"] == "close"
            go.set()
            assert "connection" not in (await busy.reply()).headers
            reply = await busy.reply()
            assert (reply.body, reply.headers["connection"]) == (b"second", "close")

        watching = asyncio.ensure_future(clients())
        keep = gateway.stack.pop_all()
    await watching
    await keep.aclose()
