"""InvokeEndpointAsync: judged by the gateway, accepted by whoever listens on the controller's socket."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.gateway.harness import (
    ACCOUNT,
    KEY,
    REGION,
    Container,
    ContainerConnection,
    Gateway,
    Headers,
    Message,
    chunked,
    echo,
    head,
    request,
    signed,
    start_gateway,
)

PATH = "/endpoints/later/async-invocations"
INPUT = {"X-Amzn-SageMaker-InputLocation": "s3://bucket/input"}
LOCATIONS = {
    "X-Amzn-SageMaker-OutputLocation": "s3://bucket/out/1.out",
    "X-Amzn-SageMaker-FailureLocation": "s3://bucket/failed/1-error.out",
}
LIMIT = 128_000


async def accept(connection: ContainerConnection) -> None:
    """A controller that accepts everything, and answers with the ids it was given."""
    while True:
        headers = (await connection.request()).headers
        body = {"InferenceId": headers.get("x-amzn-sagemaker-inference-id", "made-up")}
        await connection.reply(
            json.dumps(body).encode(),
            status=202,
            headers={"Content-Type": "application/json", "Server": "uvicorn", **LOCATIONS},
        )


async def controller(
    gateway: Gateway, script: Callable[[ContainerConnection], Awaitable[None]] = accept
) -> tuple[Container, list[Message]]:
    """The controller, and the requests it is sent; the endpoint `later` is asynchronous."""
    seen: list[Message] = []

    async def recording(connection: ContainerConnection) -> None:
        receive = connection.request

        async def record() -> Message:
            seen.append(await receive())
            return seen[-1]

        connection.request = record  # type: ignore[method-assign]
        await script(connection)

    gateway.route(name="later", asynchronous=True)
    return await gateway.upstream(gateway.settings.controller_socket, recording), seen


def call(body: bytes = b"", headers: Headers | None = None, path: str = PATH) -> bytes:
    return request(body, path, headers=headers)


def message(reply: Message) -> str:
    return str(json.loads(reply.body)["Message"])


# --- accepted ----------------------------------------------------------------------------------------------


async def test_an_invocation_goes_to_the_controller_and_its_reply_comes_back(gateway: Gateway) -> None:
    _, seen = await controller(gateway)
    given = {
        **INPUT,
        "X-Amzn-SageMaker-Content-Type": "text/csv",
        "X-Amzn-SageMaker-Accept": "a/b, c/d",
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1",
        "X-Amzn-SageMaker-Inference-Id": "mine",
        "X-Amzn-SageMaker-S3OutputPathExtension": "some/where",
        "X-Amzn-SageMaker-Filename": "result.csv",
        "X-Amzn-SageMaker-RequestTTLSeconds": "60",
        "X-Amzn-SageMaker-InvocationTimeoutSeconds": "3600",
    }
    others = {
        "Content-Type": "not/a-member",
        "X-Moorage-Account-Id": "999999999999",
        "X-Moorage-Anything": "x",
        "X-Amzn-SageMaker-Target-Variant": "no member of this operation",
    }
    reply = await gateway.call(call(headers={**given, **others}))
    assert (reply.status, json.loads(reply.body)) == (202, {"InferenceId": "mine"})
    assert reply.headers["content-type"] == "application/json"
    for name, location in LOCATIONS.items():
        assert reply.headers[name.lower()] == location
    assert "server" not in reply.headers
    assert seen[0].start == "POST /async-invocations HTTP/1.1"
    assert seen[0].body == b""
    assert seen[0].headers == {
        "host": "controller",
        "x-moorage-operation": "InvokeEndpointAsync",
        "x-moorage-account-id": ACCOUNT,
        "x-moorage-principal-arn": KEY.principal_arn,
        "x-moorage-endpoint-name": "later",
        "x-amzn-requestid": reply.headers["x-amzn-requestid"],
        "content-length": "0",
        **{name.lower(): value for name, value in given.items()},
    }


async def test_boto3_understands_the_reply(gateway: Gateway) -> None:
    await controller(gateway)

    def invoke(**members: Any) -> dict[str, Any]:
        client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{gateway.port}",
            region_name=REGION,
            aws_access_key_id=KEY.access_key_id,
            aws_secret_access_key=KEY.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}),
        )
        try:
            reply: dict[str, Any] = client.invoke_endpoint_async(EndpointName="later", **members)
            return reply
        finally:
            client.close()

    by_location = await asyncio.to_thread(
        invoke, InputLocation="s3://a/b", InferenceId="mine", RequestTTLSeconds=60, ContentType="a/b"
    )
    inline = await asyncio.to_thread(invoke, Body=b"inline", InvocationTimeoutSeconds=1)
    assert (by_location["InferenceId"], inline["InferenceId"]) == ("mine", "made-up")
    for reply in (by_location, inline):
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 202
        assert reply["OutputLocation"] == "s3://bucket/out/1.out"
        assert reply["FailureLocation"] == "s3://bucket/failed/1-error.out"


@pytest.mark.parametrize(
    ("status", "error"), [(400, "ValidationError"), (503, "ServiceUnavailable"), (500, "InternalFailure")]
)
async def test_an_error_of_the_controller_is_the_clients(gateway: Gateway, status: int, error: str) -> None:
    async def refuse(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(
            b'{"Message": "no"}',
            status=status,
            headers={"x-amzn-ErrorType": error, "Content-Type": "application/json"},
        )

    await controller(gateway, refuse)
    reply = await gateway.call(call(b"x"))
    assert (reply.status, reply.error, reply.body) == (status, error, b'{"Message": "no"}')
    assert reply.headers["content-type"] == "application/json"


async def test_connections_to_the_controller_are_reused(gateway: Gateway) -> None:
    standing, seen = await controller(gateway)
    client = await gateway.client()
    for number in range(5):
        assert (await client.call(call(b"%d" % number))).status == 202
    assert [each.body for each in seen] == [b"0", b"1", b"2", b"3", b"4"]
    assert standing.connections == 1


# --- the body's limit --------------------------------------------------------------------------------------

TOO_LONG = (
    "1 validation error detected: Value '***' at 'body' failed to satisfy constraint: "
    "Member must have length less than or equal to 128000"
)
FRAMINGS = ["length", "chunks", "expect"]


def framed(framing: str, body: bytes) -> tuple[bytes, bytes]:
    """The request's head, and its body as it travels."""
    if framing == "chunks":
        pieces = [body[at : at + 9999] for at in range(0, len(body), 9999)]
        return head(PATH, {**signed(PATH, body), "Transfer-Encoding": "chunked"}), chunked(*pieces)
    expect = {"Expect": "100-continue"} if framing == "expect" else {}
    return head(PATH, {**signed(PATH, body), "Content-Length": str(len(body)), **expect}), body


@pytest.mark.parametrize("max_body_bytes", [1000, 6 * 2**20])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_of_exactly_the_limit_is_accepted(framing: str, max_body_bytes: int) -> None:
    """Whatever the limit of other invocations is."""
    async with start_gateway(max_body_bytes=max_body_bytes) as gateway:
        _, seen = await controller(gateway)
        body = bytes(range(256)) * (LIMIT // 256)
        assert len(body) == LIMIT
        start, rest = framed(framing, body)
        client = await gateway.client()
        client.send(start)
        if framing == "expect":
            assert " 100 " in (await client.reply()).start
        client.send(rest)
        assert (await client.reply()).status == 202
        assert seen[0].body == body
        assert seen[0].headers["content-length"] == str(LIMIT)


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_one_byte_longer_is_refused_at_once(gateway: Gateway, framing: str) -> None:
    standing, _ = await controller(gateway)
    start, rest = framed(framing, bytes(LIMIT + 1))
    client = await gateway.client()
    client.send(start)
    if framing == "chunks":
        client.send(rest.removesuffix(b"0\r\n\r\n"))  # the end of the body is not waited for
    reply = await client.reply()
    assert (reply.status, reply.error, message(reply)) == (400, "ValidationError", TOO_LONG)
    assert standing.connections == 0


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "headers", "text"),
    [
        (
            PATH,
            b"x",
            INPUT,
            "InputLocation and Body are mutually exclusive, and the request has both: give exactly one of them.",
        ),
        (PATH, b"", {}, "The request has neither an InputLocation nor a Body: give exactly one of them."),
        (
            "/endpoints/none/async-invocations",
            b"x",
            {},
            f"Endpoint none of account {ACCOUNT} not found.",
        ),
        (
            "/endpoints/echo/async-invocations",
            b"x",
            {},
            f"Endpoint echo of account {ACCOUNT} is not an asynchronous endpoint: "
            "it accepts InvokeEndpoint and InvokeEndpointWithResponseStream.",
        ),
        (
            "/endpoints/-/async-invocations",
            b"x",
            {"X-Amzn-SageMaker-RequestTTLSeconds": "21601"},
            "2 validation errors detected: Value '-' at 'endpointName' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*; Value '21601' at "
            "'requestTTLSeconds' failed to satisfy constraint: Member must have value less than or equal to 21600",
        ),
    ],
)
async def test_what_an_asynchronous_call_is_refused_for(
    gateway: Gateway, path: str, body: bytes, headers: Headers, text: str
) -> None:
    standing, _ = await controller(gateway)
    gateway.route(await gateway.container(echo))
    client = await gateway.client()
    reply = await client.call(call(body, headers, path))
    assert (reply.status, reply.error, message(reply)) == (400, "ValidationError", text)
    assert standing.connections == 0
    assert (await client.call(call(b"x"))).status == 202


async def test_without_a_routing_table_it_is_unavailable(gateway: Gateway) -> None:
    """The operation does not have the error that InvokeEndpoint has for this."""
    gateway.server.table.complete = False
    reply = await gateway.call(call(b"x"))
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert "routing table" in message(reply)


async def test_only_what_is_signed_reaches_the_controller(gateway: Gateway) -> None:
    standing, _ = await controller(gateway)
    whole = call(b"body", {"X-Amzn-SageMaker-Inference-Id": "mine"})
    for raw, error in (
        (head(PATH, {"Host": "a", "Content-Length": "1"}) + b"x", "MissingAuthenticationTokenException"),
        (whole.replace(b"body", b"evil"), "InvalidSignatureException"),
        (whole.replace(b": mine", b": evil"), "InvalidSignatureException"),
        (request(b"x", PATH, service="execute-api"), "InvalidSignatureException"),
    ):
        reply = await gateway.call(raw)
        assert (reply.status, reply.error) == (403, error)
    assert standing.connections == 0


async def test_a_relayed_request_cannot_pass_for_an_invocation(gateway: Gateway) -> None:
    """The controller knows one by `x-moorage-operation`, which only the gateway can say."""
    _, seen = await controller(gateway)
    lies = {
        "X-Moorage-Operation": "InvokeEndpointAsync",
        "x-moorage-endpoint-name": "later",
    }
    for path in ("/async-invocations", "//async-invocations", "/async-invocations?x"):
        await gateway.call(request(b"x", path, headers=lies))
    assert len(seen) == 3
    for each in seen:
        assert "x-moorage-operation" not in each.headers
        assert "x-moorage-endpoint-name" not in each.headers


# --- a controller that is away, or goes --------------------------------------------------------------------


async def test_without_a_controller_it_is_unavailable(gateway: Gateway) -> None:
    gateway.route(name="later", asynchronous=True)
    reply = await gateway.call(call(b"x"))
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert "starting or restarting" in message(reply)
    assert not gateway.front.timed_calls


async def test_a_controller_that_comes_back_gets_the_invocation(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.gateway.relay._PATIENCE_SECONDS", 30)
    gateway.route(name="later", asynchronous=True)
    client, gone = await gateway.client(), await gateway.client()
    client.send(call(b"waits"))
    gone.send(call(b"goes"))
    assert await gateway.is_alive()
    gone.close()
    assert await gateway.is_alive()
    _, seen = await controller(gateway)
    assert (await client.reply()).status == 202
    assert [each.body for each in seen] == [b"waits"]


async def test_what_a_dying_controller_had_not_read_is_sent_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was still waiting to be accepted when the controller died."""
    monkeypatch.setattr("moorage.gateway.relay._PATIENCE_SECONDS", 30)
    gateway.route(name="later", asynchronous=True)
    path, loop, waiting = gateway.settings.controller_socket, asyncio.get_running_loop(), asyncio.Event()
    client = await gateway.client()
    with socket.socket(socket.AF_UNIX) as dying:
        dying.setblocking(False)
        dying.bind(str(path))
        dying.listen()
        loop.add_reader(dying, waiting.set)
        client.send(call(b"once"))
        await waiting.wait()
        assert await gateway.is_alive()  # and the request has been written meanwhile
        loop.remove_reader(dying)
    path.unlink()
    _, seen = await controller(gateway)
    assert (await client.reply()).status == 202
    assert [each.body for each in seen] == [b"once"]


async def test_an_idle_connection_that_had_died_is_replaced(gateway: Gateway) -> None:
    async def once(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"{}", status=202)

    standing, seen = await controller(gateway, once)
    client = await gateway.client()
    client.send(call(b"1") + call(b"2"))
    assert (await client.reply()).status == (await client.reply()).status == 202
    assert [each.body for each in seen] == [b"1", b"2"]
    assert standing.connections == 2


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 202", b"garbage\r\n\r\n"])
async def test_a_controller_that_dies_before_it_has_answered_leaves_it_open(
    gateway: Gateway, raw: bytes
) -> None:
    async def die(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    _, seen = await controller(gateway, die)
    reply = await gateway.call(call(b"x"))
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert "may or may not have been accepted" in message(reply)
    assert len(seen) == 1
    assert not gateway.front.timed_calls


async def test_a_reply_that_breaks_off_is_not_taken_for_whole(gateway: Gateway) -> None:
    async def half(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 10\r\n\r\n{")

    await controller(gateway, half)
    reply = await gateway.call(call(b"x"))
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert "broke off before it had answered" in message(reply)
    assert not gateway.front.timed_calls


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 202 Accepted\r\nContent-Length: 10\r\n\r\n{"])
async def test_a_controller_that_does_not_answer_is_not_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("moorage.gateway.enqueue._REPLY_SECONDS", 0.2)

    async def stuck(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(begun)
        await connection.closed_by_gateway()

    standing, _ = await controller(gateway, stuck)
    client = await gateway.client()
    client.send(call(b"x"))
    reply = await client.reply()
    assert (reply.status, reply.error) == (503, "ServiceUnavailable")
    assert "did not answer in time. The invocation may or may not have been accepted" in message(reply)
    await standing.ended.get()
    assert not gateway.front.timed_calls


async def test_a_client_that_goes_leaves_nothing_behind(gateway: Gateway) -> None:
    received = asyncio.Event()

    async def slow(connection: ContainerConnection) -> None:
        await connection.request()
        received.set()
        await connection.closed_by_gateway()

    standing, _ = await controller(gateway, slow)
    client = await gateway.client()
    client.send(call(b"x"))
    await received.wait()
    client.close()
    await standing.ended.get()
    assert not gateway.front.timed_calls
    assert await gateway.is_alive()
