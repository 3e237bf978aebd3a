"""InvokeEndpointWithResponseStream: every byte of the container, and every way a stream can break."""

import asyncio
import json
import time
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EventStreamError

from moorage.wire.eventstream import Decoder, Message
from tests.gateway.harness import (
    KEY,
    REGION,
    Client,
    ContainerConnection,
    Gateway,
    chunked,
    request,
    start_gateway,
)

PATH = "/endpoints/echo/invocations-response-stream"


def streamed(body: bytes = b"go", **options: Any) -> bytes:
    return request(body, PATH, **options)


def stream_client(gateway: Gateway) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{gateway.port}",
        region_name=REGION,
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def read_with_boto3(gateway: Gateway) -> tuple[dict[str, Any], list[bytes]]:
    """The reply and its parts, as an unmodified client sees them."""
    reply = stream_client(gateway).invoke_endpoint_with_response_stream(EndpointName="echo", Body=b"go")
    return reply, [event["PayloadPart"]["Bytes"] for event in reply["Body"]]


async def serve(gateway: Gateway, raw_reply: bytes, *, reset: bool = False, close: bool = False) -> None:
    """A container that answers with these bytes."""

    async def script(connection: ContainerConnection) -> None:
        while True:
            await connection.request()
            await connection.write(raw_reply)
            if reset:
                connection.reset()
            if reset or close:
                return

    gateway.route(await gateway.container(script))


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def is_idle(gateway: Gateway) -> bool:
    return " 0 outstanding" in repr(gateway.server.table)


# --- whole streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chunks"),
    [
        ("one part", [b"hello"]),
        ("no part", []),
        ("binary", [bytes(range(256)), b"\x00", b"\r\n\r\n", b"\xff" * 1000]),
        (
            "utf-8 split within a character",
            ["é".encode()[:1], "é".encode()[1:] + "日本".encode()[:4], b"\xac"],
        ),
    ],
)
async def test_boto3_reads_the_containers_bytes(gateway: Gateway, name: str, chunks: list[bytes]) -> None:
    await serve(gateway, CHUNKED + chunked(*chunks))
    reply, parts = await asyncio.to_thread(read_with_boto3, gateway)
    assert parts == chunks, "chunks that arrive together are neither split nor joined"
    assert reply["ContentType"] == "text/event-stream"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    assert is_idle(gateway)


async def test_a_hundred_thousand_small_parts(gateway: Gateway) -> None:
    chunks = [b"%d;" % number for number in range(100_000)]
    await serve(gateway, CHUNKED + chunked(*chunks))
    _, parts = await asyncio.to_thread(read_with_boto3, gateway)
    assert b"".join(parts) == b"".join(chunks)


async def test_a_part_of_five_mebibytes(gateway: Gateway) -> None:
    chunk = bytes(range(256)) * 4 * 5 * 1024
    await serve(gateway, CHUNKED + chunked(chunk))
    _, parts = await asyncio.to_thread(read_with_boto3, gateway)
    assert b"".join(parts) == chunk
    assert max(map(len, parts)) <= 1024 * 1024


async def test_a_container_that_does_not_chunk(gateway: Gateway) -> None:
    await serve(gateway, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
    reply, parts = await asyncio.to_thread(read_with_boto3, gateway)
    assert (parts, reply["ContentType"]) == ([b"hello"], "text/plain")


async def test_a_container_that_ends_by_closing(gateway: Gateway) -> None:
    await serve(gateway, b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)
    reply, parts = await asyncio.to_thread(read_with_boto3, gateway)
    assert parts == [b"until the end"]
    assert "ContentType" not in reply


async def test_headers_of_a_stream(gateway: Gateway) -> None:
    seen: list[dict[str, str]] = []

    async def script(connection: ContainerConnection) -> None:
        seen.append((await connection.request()).headers)
        await connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Amzn-SageMaker-Custom-Attributes: back\r\n"
            b"X-Amzn-SageMaker-New-Session-Id: none of a stream's business\r\nServer: s\r\n"
            b"Content-Length: 1\r\n\r\nx"
        )

    gateway.route(await gateway.container(script))
    headers = {
        "Content-Type": "application/json",
        "X-Amzn-SageMaker-Accept": "text/event-stream",
        "X-Amzn-SageMaker-Custom-Attributes": "there",
        "X-Amzn-SageMaker-Inference-Id": "id-1",
        "X-Amzn-SageMaker-Session-Id": "session-1",
    }
    reply = await gateway.call(streamed(headers=headers, extra={"Accept": "*/*"}))
    assert seen[0]["accept"] == "text/event-stream"
    assert seen[0]["x-amzn-sagemaker-forwarded-api"] == "InvokeEndpointWithResponseStream"
    assert seen[0]["x-amzn-sagemaker-custom-attributes"] == "there"
    assert seen[0]["x-amzn-sagemaker-session-id"] == "session-1"
    assert "x-amzn-sagemaker-accept" not in seen[0]
    assert reply.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert reply.headers["x-amzn-sagemaker-content-type"] == "a/b"
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "back"
    assert not {"server", "x-amzn-sagemaker-new-session-id"} & set(reply.headers)


async def test_a_connection_serves_stream_after_stream(gateway: Gateway) -> None:
    await serve(gateway, CHUNKED + chunked(b"a", b"b"))
    client = await gateway.client()
    for _ in range(3):
        reply = await client.call(streamed())
        assert [message.payload for message in Decoder().feed(reply.body)] == [b"a", b"b"]


# --- errors before the first byte -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_an_error_status_is_a_plain_error(gateway: Gateway, status: int) -> None:
    await serve(
        gateway, b"HTTP/1.1 %d E\r\nTransfer-Encoding: chunked\r\n\r\n" % status + chunked(b"no ", b"luck")
    )
    reply = await gateway.call(streamed())
    error = json.loads(reply.body)
    assert (reply.status, reply.error) == (424, "ModelError")
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (status, "no luck")


async def test_a_reset_before_the_first_byte_is_a_plain_error(gateway: Gateway) -> None:
    await serve(gateway, CHUNKED, reset=True)
    reply = await gateway.call(streamed())
    assert (reply.status, reply.error) == (424, "ModelError")


async def test_no_first_byte_in_time_is_a_plain_error() -> None:
    async with start_gateway(invocation_timeout_seconds=0.2) as gateway:
        await serve(gateway, CHUNKED)
        reply = await gateway.call(streamed())
        assert (reply.status, reply.error) == (424, "ModelError")
        assert json.loads(reply.body)["OriginalStatusCode"] == 0


async def test_what_cannot_be_streamed_is_refused(gateway: Gateway) -> None:
    unknown = await gateway.call(request(b"", "/endpoints/nobody/invocations-response-stream"))
    assert (unknown.status, unknown.error) == (400, "ValidationError")
    await serve(gateway, CHUNKED + chunked(b"x"))
    session = await gateway.call(streamed(headers={"X-Amzn-SageMaker-Session-Id": "NEW_SESSION"}))
    assert session.error == "ValidationError"
    assert b"sessionId" in session.body
    gateway.route(provisioning=True)
    nowhere = await gateway.call(streamed())
    assert (nowhere.status, nowhere.error) == (503, "ServiceUnavailable"), (
        "ModelNotReady is not of this operation"
    )


# --- breaks inside the stream -----------------------------------------------------------------------------------


async def break_of(gateway: Gateway) -> tuple[list[bytes], Message]:
    """The parts before it, and the exception event itself."""
    reply = await gateway.call(streamed())
    assert reply.status == 200
    *parts, last = Decoder().feed(reply.body)
    assert last.headers[":message-type"] == "exception"
    assert is_idle(gateway)
    return [part.payload for part in parts], last


@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_breaks_is_told(gateway: Gateway, reset: bool) -> None:
    await serve(gateway, CHUNKED + b"3\r\none\r\n3\r\ntw", reset=reset, close=True)
    parts, event = await break_of(gateway)
    assert parts[:1] == [b"one"]
    assert event.headers[":exception-type"] == "ModelStreamError"
    members = json.loads(event.payload)
    assert members["ErrorCode"] == "StreamBroken"
    assert "primary" in members["Message"]


async def test_nonsense_in_the_middle_is_told(gateway: Gateway) -> None:
    await serve(gateway, CHUNKED + b"3\r\none\r\nnonsense\r\n", close=True)
    parts, event = await break_of(gateway)
    assert (parts, json.loads(event.payload)["ErrorCode"]) == ([b"one"], "StreamBroken")


async def test_a_stream_that_takes_too_long_is_told() -> None:
    async with start_gateway(stream_timeout_seconds=0.3) as gateway:
        await serve(gateway, CHUNKED + b"3\r\none\r\n")
        parts, event = await break_of(gateway)
        assert parts == [b"one"]
        assert json.loads(event.payload) == {
            "Message": "Your model primary did not complete sending the inference response in the allotted time.",
            "ErrorCode": "ModelInvocationTimeExceeded",
        }


async def test_a_fault_of_ours_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(chunk: bytes) -> list[bytes]:
        raise RuntimeError("a bug")

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(CHUNKED + b"3\r\none\r\n")
        await reached.wait()
        monkeypatch.setattr("moorage.wire.eventstream.encode_payload_parts", fail)
        await connection.write(b"3\r\ntwo\r\n")
        await connection.closed_by_gateway()

    reached = asyncio.Event()
    gateway.route(await gateway.container(script))
    client = await gateway.client()
    client.send(streamed())
    decoder = Decoder()
    assert [message.payload for message in await next_messages(client, decoder)] == [b"one"]
    reached.set()
    (event,) = await next_messages(client, decoder)
    assert event.headers[":exception-type"] == "InternalStreamFailure"
    assert json.loads(event.payload)["Message"]
    assert "a bug" in caplog.text
    caplog.clear()


async def test_boto3_raises_what_broke_the_stream(gateway: Gateway) -> None:
    await serve(gateway, CHUNKED + b"3\r\none\r\n", reset=True)
    with pytest.raises(EventStreamError, match="ModelStreamError") as caught:
        await asyncio.to_thread(read_with_boto3, gateway)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


# --- time and flow ------------------------------------------------------------------------------------------------


async def next_messages(client: Client, decoder: Decoder) -> list[Message]:
    """The messages in the next HTTP chunk that has any; reads the reply's head where it comes first."""
    while True:
        line = await client.reader.readuntil(b"\r\n")
        if line.startswith(b"HTTP/"):
            await client.reader.readuntil(b"\r\n\r\n")
            continue
        data = await client.reader.readexactly(int(line, 16) + 2)
        messages = decoder.feed(data[:-2])
        if messages:
            return messages


async def test_a_part_goes_out_before_the_next_is_made(gateway: Gateway) -> None:
    asked = asyncio.Queue[bytes]()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(CHUNKED)
        while part := await asked.get():
            await connection.write(b"%x\r\n%b\r\n" % (len(part), part))
        await connection.write(b"0\r\n\r\n")

    gateway.route(await gateway.container(script))
    client, decoder = await gateway.client(), Decoder()
    client.send(streamed())
    for number in range(20):
        asked.put_nowait(b"%d" % number)
        assert [message.payload for message in await next_messages(client, decoder)] == [b"%d" % number]
    asked.put_nowait(b"")
    assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_the_container_is_cut_off_when_the_client_leaves(gateway: Gateway) -> None:
    cut: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(CHUNKED + b"3\r\none\r\n")
        await connection.closed_by_gateway()
        cut.set_result(time.monotonic())

    gateway.route(await gateway.container(script))
    client = await gateway.client()
    client.send(streamed())
    await next_messages(client, Decoder())
    left = time.monotonic()
    client.close()
    assert await cut - left < 0.1, "the promise is 100 ms"
    assert is_idle(gateway)


async def test_a_slow_client_slows_its_container_and_nobody_else(gateway: Gateway) -> None:
    sent = 0
    stuck = asyncio.Event()

    async def flood(connection: ContainerConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.write(CHUNKED)
        connection.writer.transport.set_write_buffer_limits(0)
        chunk = bytes(64 * 1024)
        while sent < 2000 * len(chunk):
            connection.writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            sent += len(chunk)
            try:
                async with asyncio.timeout(0.5):
                    await connection.writer.drain()
            except TimeoutError:
                stuck.set()
                await connection.writer.drain()
        await connection.write(b"0\r\n\r\n")

    gateway.route(await gateway.container(flood))
    await gateway.echo_as("other")
    client = await gateway.client(receive_buffer=4096)
    client.send(streamed())
    await stuck.wait()
    assert sent < 1000 * 64 * 1024, (
        "the gateway does not take in what it cannot pass on, beyond the kernel's buffers"
    )
    assert (await gateway.call(request(b"x", "/endpoints/other/invocations"))).body == b"x"
    size = sum(len(message.payload) for message in Decoder().feed((await client.reply()).body))
    assert size == 2000 * 64 * 1024


async def test_many_streams_at_once_keep_their_order(gateway: Gateway) -> None:
    async def script(connection: ContainerConnection) -> None:
        name = (await connection.request()).body
        await connection.write(CHUNKED)
        for number in range(20):
            part = b"%b-%d" % (name, number)
            await connection.write(b"%x\r\n%b\r\n" % (len(part), part))
            await asyncio.sleep(0)
        await connection.write(b"0\r\n\r\n")

    gateway.route(await gateway.container(script))
    replies = await asyncio.gather(*(gateway.call(streamed(b"%d" % name)) for name in range(200)))
    for name, reply in enumerate(replies):
        parts = [message.payload for message in Decoder().feed(reply.body)]
        assert b"".join(parts) == b"".join(b"%d-%d" % (name, number) for number in range(20))
