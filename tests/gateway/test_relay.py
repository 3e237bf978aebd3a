"""Requests that others answer: the controller's, collected, and those of S3, streamed."""

import asyncio
import hashlib
import json
from collections.abc import Callable

import pytest

from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from tests.gateway.harness import (
    ACCOUNT,
    S3_ACCOUNTS,
    ContainerConnection,
    Gateway,
    Message,
    chunked,
    head,
    request,
    signed,
    start_gateway,
)

MIB = 1024 * 1024
LIST = {"X-Amz-Target": "SageMaker.ListEndpoints", "Content-Type": "application/x-amz-json-1.1"}


def put(path: str, body: bytes, **headers: str) -> bytes:
    return request(body, path, method="PUT", service="s3", headers=headers)


# --- the controller ----------------------------------------------------------------------------------------


async def test_the_controller_is_told_who_asks(gateway: Gateway) -> None:
    seen: list[Message] = []

    async def script(connection: ContainerConnection) -> None:
        seen.append(await connection.request())
        await connection.reply(
            b'{"Endpoints": []}',
            headers={
                "Content-Type": "application/x-amz-json-1.1",
                "Server": "uvicorn",
                "Date": "yesterday",
                "x-amzn-requestid": "mine",
                "Keep-Alive": "timeout=5",
            },
        )

    await gateway.upstream(gateway.settings.controller_socket, script)
    lies = {
        "X-Moorage-Account-Id": "999999999999",
        "x-moorage-principal-arn": "arn:aws:iam::999999999999:root",
        "X-MOORAGE-Anything": "x",
    }
    hop = {"TE": "trailers", "Proxy-Authorization": "x", "Keep-Alive": "1", "Connection": "keep-alive"}
    reply = await gateway.call(request(b"{}", "/", headers={**LIST, **lies}, extra=hop))
    assert (reply.status, reply.body) == (200, b'{"Endpoints": []}')
    assert "server" not in reply.headers
    assert "keep-alive" not in reply.headers
    assert reply.headers["date"] != "yesterday"
    headers = seen[0].headers
    assert seen[0].start == "POST / HTTP/1.1"
    assert {name: value for name, value in headers.items() if name.startswith("x-moorage-")} == {
        "x-moorage-account-id": "000000000000",
        "x-moorage-principal-arn": "arn:aws:iam::000000000000:root",
        "x-moorage-access-key-id": "AKIDEXAMPLE",
        "x-moorage-user-id": "000000000000",
        "x-moorage-service": "sagemaker",
        "x-moorage-region": "us-east-1",
        "x-moorage-secure": "false",
        "x-moorage-source-ip": "127.0.0.1",
    }
    assert headers["x-amzn-requestid"] == reply.headers["x-amzn-requestid"] != "mine"
    assert headers["x-amz-target"] == "SageMaker.ListEndpoints"
    for name in ("authorization", "te", "proxy-authorization", "keep-alive", "connection"):
        assert name not in headers


async def test_the_controller_gets_nothing_that_is_not_signed(gateway: Gateway) -> None:
    controller = await gateway.upstream(gateway.settings.controller_socket, silent)
    reply = await gateway.call(request(b'{"a":1}', "/", headers=LIST).replace(b'{"a":1}', b'{"a":2}'))
    assert (reply.status, reply.error) == (403, "InvalidSignatureException")
    assert json.loads(reply.body)["__type"] == "InvalidSignatureException"
    assert controller.connections == 0


async def silent(connection: ContainerConnection) -> None:
    await connection.closed_by_gateway()


async def test_a_prefixed_path_is_the_controllers_to_refuse(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        message = await connection.request()
        await connection.reply(message.start.encode(), status=404)

    await gateway.upstream(gateway.settings.controller_socket, script)
    reply = await gateway.call(request(b"x", "/prefix/endpoints/echo/invocations"))
    assert (reply.status, reply.body) == (404, b"POST /prefix/endpoints/echo/invocations HTTP/1.1")


async def test_a_controller_request_has_a_limit(gateway: Gateway) -> None:
    controller = await gateway.upstream(gateway.settings.controller_socket, silent)
    lines = {**signed("/", headers=LIST), "Content-Length": str(4 * MIB + 1)}
    assert (await gateway.call(head("/", lines))).status == 413
    assert controller.connections == 0


async def test_without_a_controller_the_format_is_the_clients(gateway: Gateway) -> None:
    reply = await gateway.call(request(b"{}", "/", headers=LIST))
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert json.loads(reply.body)["__type"] == "ServiceUnavailable"
    reply = await gateway.call(put("/bucket/key", b"x"))
    assert reply.status == 503
    assert b"<Code>ServiceUnavailable</Code>" in reply.body
    reply = await gateway.call(request(b"Action=GetCallerIdentity", "/", service="sts"))
    assert reply.status == 503
    assert b"<Code>ServiceUnavailable</Code>" in reply.body


async def test_a_controller_that_comes_back_gets_the_request(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.gateway.relay._PATIENCE_SECONDS", 30)

    async def script(connection: ContainerConnection) -> None:
        await connection.reply((await connection.request()).body)

    client = await gateway.client()
    client.send(request(b"{}", "/", headers=LIST))
    gone = await gateway.client()
    gone.send(request(b"{}", "/", headers=LIST))
    assert await gateway.is_alive()
    gone.close()  # nobody waits for this one any more
    assert await gateway.is_alive()
    controller = await gateway.upstream(gateway.settings.controller_socket, script)
    assert (await client.reply()).body == b"{}"
    assert controller.connections == 1


CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200", b"garbage\r\n\r\n", CUT_OFF])
async def test_a_controller_that_breaks_off_is_an_internal_failure(gateway: Gateway, raw: bytes) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    await gateway.upstream(gateway.settings.controller_socket, script)
    reply = await gateway.call(request(b"{}", "/", headers=LIST))
    assert (reply.status, reply.error) == (500, "InternalFailure")
    assert "broke off" in json.loads(reply.body)["Message"]


async def test_an_idle_controller_connection_that_had_died_is_replaced(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.reply((await connection.request()).body)
            if connection.number == 1:
                return

    controller = await gateway.upstream(gateway.settings.controller_socket, script)
    client = await gateway.client()
    client.send(request(b"1", "/", headers=LIST) + request(b"2", "/", headers=LIST))
    assert (await client.reply()).body == b"1"
    assert (await client.reply()).body == b"2"
    assert controller.connections == 2


async def test_an_idle_s3_connection_that_had_died_is_replaced(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.reply((await connection.request()).start.encode())
            if connection.number == 1:
                return

    s3 = await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    paths = ["/bucket/1", "/bucket/2"]
    client.send(b"".join(request(b"", path, method="GET", service="s3") for path in paths))
    for path in paths:
        assert (await client.reply()).body == f"GET {path} HTTP/1.1".encode()
    assert s3.connections == 2


# --- S3 ----------------------------------------------------------------------------------------------------


async def test_s3_requests_arrive_anew_and_signed_for_the_account(gateway: Gateway) -> None:
    seen: list[Message] = []

    async def script(connection: ContainerConnection) -> None:
        seen.append(await connection.request())
        await connection.reply(headers={"ETag": '"abc"', "X-Amz-Version-Id": "1"})

    await gateway.upstream(gateway.settings.s3_socket, script)
    path = "/bucket/a%20b/c?partNumber=1&uploadId=x"
    reply = await gateway.call(
        put(path, b"body", **{"Content-MD5": "hBorFd5rKuoU8Ewkm1c6Ug==", "X-Other": "b"})
    )
    assert (reply.status, reply.headers["etag"], reply.headers["x-amz-version-id"]) == (200, '"abc"', "1")
    [arrived] = seen
    assert arrived.start == f"PUT {path} HTTP/1.1"
    assert arrived.body == b"body"
    assert arrived.headers["content-md5"] == "hBorFd5rKuoU8Ewkm1c6Ug=="
    assert "x-other" not in arrived.headers
    secret = S3_ACCOUNTS.secret_of(ACCOUNT)
    key = AccessKey(
        access_key_id=ACCOUNT, secret_access_key=secret, account_id=ACCOUNT, principal_arn="", user_id=""
    )
    verifier = Verifier({ACCOUNT: key})
    headers = {name.encode(): value.encode() for name, value in arrived.headers.items()}
    claim = verifier.claim(headers, path.encode())
    assert claim.payload_hash == b"UNSIGNED-PAYLOAD"  # the gateway has compared it
    assert verifier.verify(claim, b"PUT", path.encode(), headers, "").access_key_id == ACCOUNT


async def test_s3_head_and_empty_replies(gateway: Gateway) -> None:
    replies = {
        "HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: x\r\n\r\n",
        "DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        "GET": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    }

    async def script(connection: ContainerConnection) -> None:
        while True:
            method = (await connection.request()).start.split(" ")[0]
            await connection.write(replies[method])

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    for method, status in (("HEAD", 200), ("DELETE", 204), ("GET", 304), ("HEAD", 200)):
        client.send(request(b"", "/bucket/key", method=method, service="s3"))
        reply = await client.reply(has_body=False)
        assert reply.status == status
        assert reply.headers.get("content-length") == ("1000" if method == "HEAD" else None)
        assert "transfer-encoding" not in reply.headers


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", ["length", "chunks", "none"])
async def test_s3_replies_in_any_framing(gateway: Gateway, framing: str, version: str) -> None:
    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            if framing == "length":
                await connection.reply(b"abcdef")
            elif framing == "chunks":
                await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await connection.write(chunked(b"abc", b"def"))
            else:
                await connection.write(b"HTTP/1.1 200 OK\r\n\r\nabcdef")
                return

    await gateway.upstream(gateway.settings.s3_socket, script)
    for _ in range(2):
        client = await gateway.client()
        client.send(request(b"", "/bucket/key", method="GET", service="s3", version=version))
        reply = await client.reply()
        assert reply.body == b"abcdef"
        if version == "1.0":
            assert "transfer-encoding" not in reply.headers
            assert await client.rest() == b""


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_s3_bodies_without_a_hash(gateway: Gateway, framing: str) -> None:
    """Those without a length are refused, as S3 does."""

    async def script(connection: ContainerConnection) -> None:
        await connection.reply((await connection.request()).body)

    await gateway.upstream(gateway.settings.s3_socket, script)
    whole = put("/bucket/key", b"abcdef", **{"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    if framing == "chunks":
        whole = whole.replace(b"Content-Length: 6", b"Transfer-Encoding: chunked").removesuffix(b"abcdef")
        whole += chunked(b"abc", b"def")
    reply = await gateway.call(whole)
    if framing == "length":
        assert reply.body == b"abcdef"
    else:
        assert reply.status == 411
        assert b"<Code>MissingContentLength</Code>" in reply.body


IN_CHUNKS = b"3\r\nabc\r\n3\r\ndef\r\n0\r\nx-amz-checksum-crc32: S4y3kQ==\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_s3_bodies_in_chunks_of_aws_arrive_in_them(gateway: Gateway, framing: str) -> None:
    """The S3 compares the checksum at their end. Signed ones are in tests/gateway/s3/test_chunks.py."""

    async def script(connection: ContainerConnection) -> None:
        request = await connection.request()
        shown = ("content-length", "content-encoding", "x-amz-content-sha256", "x-amz-decoded-content-length")
        told = ",".join(str(request.headers.get(name)) for name in shown)
        await connection.reply(request.body + b" " + told.encode())

    await gateway.upstream(gateway.settings.s3_socket, script)
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "6",
        "content-encoding": "aws-chunked,gzip",
    }
    whole = put("/bucket/key", IN_CHUNKS, **headers)
    if framing == "chunks":
        length = b"Content-Length: %d" % len(IN_CHUNKS)
        whole = whole.replace(length, b"Transfer-Encoding: chunked").removesuffix(IN_CHUNKS)
        whole += chunked(IN_CHUNKS[:5], IN_CHUNKS[5:])
    length_told = len(IN_CHUNKS) if framing == "length" else None
    told = f" {length_told},gzip,STREAMING-UNSIGNED-PAYLOAD-TRAILER,6"
    assert (await gateway.call(whole)).body == IN_CHUNKS + told.encode()


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (IN_CHUNKS, "7"),
        (IN_CHUNKS, "5"),
        (IN_CHUNKS, ""),
        (IN_CHUNKS, "-6"),
        (IN_CHUNKS[:-4], "6"),
        (b"not chunks", "6"),
        (b"", "6"),
    ],
)
async def test_s3_bodies_that_are_not_what_they_say_never_arrive_whole(
    gateway: Gateway, body: bytes, length: str
) -> None:
    whole_ones = 0

    async def script(connection: ContainerConnection) -> None:
        nonlocal whole_ones
        await connection.request()
        whole_ones += 1
        await connection.reply()

    await gateway.upstream(gateway.settings.s3_socket, script)
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": length,
    }
    reply = await gateway.call(put("/bucket/key", body, **headers))
    assert reply.status == 400
    assert whole_ones == 0


@pytest.mark.parametrize(
    ("whole", "status", "code"),
    [
        (lambda: b"PUT /bucket/key HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 403, "AccessDenied"),
        (
            lambda: put("/bucket/key", b"x").replace(b"/bucket/key", b"/bucket/kez"),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            lambda: put("/bucket/key", b"x").replace(b"=AKIDEXAMPLE", b"=AKIDEXAMPLF"),
            403,
            "InvalidAccessKeyId",
        ),
        (lambda: put("/b/k", b"x", **{"x-amz-content-sha256": "nonsense"}), 400, "InvalidArgument"),
        (lambda: put("/b/k", b"x", **{"x-amz-content-sha256": "0" * 64}), 400, "XAmzContentSHA256Mismatch"),
        (lambda: put("/b/k", b"", **{"x-amz-content-sha256": "0" * 64}), 400, "XAmzContentSHA256Mismatch"),
        (lambda: put("/b/k", b"").replace(b"X-Amz-Content-SHA256:", b"X-Removed:"), 400, "InvalidRequest"),
        (
            lambda: put("/b/k", b"x", **{"x-amz-content-sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}),
            501,
            "NotImplemented",
        ),
        (lambda: put("/b?versioning", bytes(4 * 2**20 + 1)), 400, "MaxMessageLengthExceeded"),
    ],
)
async def test_s3_refusals_speak_s3(
    gateway: Gateway, whole: Callable[[], bytes], status: int, code: str
) -> None:
    s3 = await gateway.upstream(gateway.settings.s3_socket, silent)
    reply = await gateway.call(whole())
    assert (reply.status, reply.headers["content-type"]) == (status, "application/xml")
    assert f"<Error><Code>{code}</Code>".encode() in reply.body
    assert reply.headers["x-amzn-requestid"].encode() in reply.body
    assert not s3.requests


async def test_a_tampered_upload_never_arrives_whole(gateway: Gateway) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        body = b""
        try:
            while piece := await connection.reader.read(65536):
                body += piece
        except ConnectionError:
            pass
        received.put_nowait(body)

    await gateway.upstream(gateway.settings.s3_socket, script)
    for size in (1, 1000, 3 * MIB):
        body = bytes(size - 1)
        reply = await gateway.call(put("/bucket/key", body + b"x").removesuffix(b"x") + b"y")
        assert reply.status == 400
        assert b"<Code>XAmzContentSHA256Mismatch</Code>" in reply.body
        if size > 1000:  # a small one may be over before there is a connection
            assert len(await received.get()) < size
    # A body cut off altogether, on a connection that is ready at once.
    assert (await gateway.call(put("/bucket/key", b"x").replace(b"h: 1", b"h: 0")[:-1])).status == 400


async def test_an_upload_waits_for_a_slow_s3(gateway: Gateway) -> None:
    read = asyncio.Event()
    body = bytes(range(256)) * (48 * 4096)

    async def script(connection: ContainerConnection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await read.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        message = await connection.request()
        await connection.reply(hashlib.sha256(message.body).hexdigest().encode())

    await gateway.upstream(gateway.settings.s3_socket, script)
    whole = put("/bucket/key", body)
    client = await gateway.client()
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            client.send(whole[sent : sent + MIB])
            sent += MIB
            await asyncio.wait_for(client.writer.drain(), 0.3)
    assert sent < len(body) // 2  # what the kernel's buffers hold, and a little
    read.set()
    client.send(whole[sent:])
    assert (await client.reply()).body == hashlib.sha256(body).hexdigest().encode()


async def test_a_download_waits_for_a_slow_client(gateway: Gateway) -> None:
    stalled = asyncio.Event()
    piece = bytes(range(256)) * 4096
    pieces = 48
    written = 0

    async def script(connection: ContainerConnection) -> None:
        nonlocal written
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * len(piece)))
        for _ in range(pieces):
            connection.writer.write(piece)
            try:
                await asyncio.wait_for(connection.writer.drain(), 0.3)
            except TimeoutError:
                stalled.set()
                await connection.writer.drain()
            written += 1

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client(receive_buffer=65536)
    client.send(request(b"", "/bucket/key", method="GET", service="s3"))
    await asyncio.wait_for(stalled.wait(), 10)
    assert written < pieces // 2
    assert (await client.reply()).body == piece * pieces
    assert (await client.call(b"GET /_moorage/health HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200


@pytest.mark.parametrize("stage", ["request", "reply"])
async def test_a_client_that_leaves_ends_the_transfer(gateway: Gateway, stage: str) -> None:
    busy, closed = asyncio.Event(), asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        if stage == "reply":
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        busy.set()
        await connection.closed_by_gateway()
        closed.set()

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    whole = put("/bucket/key", bytes(1000))
    client.send(whole[:-1] if stage == "request" else whole)
    await busy.wait()
    client.close()
    await asyncio.wait_for(closed.wait(), 5)


async def test_a_download_that_breaks_off_is_cut_off(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(request(b"", "/bucket/key", method="GET", service="s3"))
    assert b"Content-Length: 100000\r\n" in await client.reader.readuntil(b"\r\n\r\n")
    assert len(await client.rest()) < 1000


async def test_nothing_of_a_small_reply_is_sent_before_all_of_it_is_there(gateway: Gateway) -> None:
    """boto3 takes a head whose body is cut off for a whole reply: without members, but with status 200."""
    whole = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await whole.wait()
        await connection.write(b"def")

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(request(b"", "/bucket/key", method="GET", service="s3"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.reader.readexactly(1)
    whole.set()
    assert (await client.reply()).body == b"abcdef"


async def test_an_early_reply_ends_the_upload(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.reply(b"<Error/>", status=403)
        await connection.closed_by_gateway()

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    client.send(put("/bucket/key", bytes(MIB))[: MIB // 2])
    reply = await client.reply()
    assert (reply.status, reply.body, reply.headers["connection"]) == (403, b"<Error/>", "close")
    assert await client.rest() == b""


async def test_an_upload_that_the_s3_never_takes_ends() -> None:
    async with start_gateway(body_timeout_seconds=0.3) as gateway:

        async def script(connection: ContainerConnection) -> None:
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

        await gateway.upstream(gateway.settings.s3_socket, script)
        client = await gateway.client()
        client.send(put("/bucket/key", bytes(32 * MIB)))
        reply = await client.reply()
        assert reply.status == 503
        assert b"was not taken in time" in reply.body


async def test_pipelined_uploads_keep_their_order_and_their_bounds(gateway: Gateway) -> None:
    bodies: list[bytes] = []

    async def script(connection: ContainerConnection) -> None:
        while True:
            bodies.append((await connection.request()).body)
            await connection.reply(bodies[-1][:1])

    await gateway.upstream(gateway.settings.s3_socket, script)
    client = await gateway.client()
    sent = [bytes([number]) * 300_000 for number in range(1, 6)]
    for body in sent:
        client.send(put("/bucket/key", body))
    for body in sent:
        assert (await client.reply()).body == body[:1]
    assert bodies == sent
