"""Connections of one client: no more than allowed, a refusal that SDKs understand, and each counted until it ends."""

import asyncio
import errno
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from moorage.gateway.visitors import Visitors
from tests.gateway.harness import HEALTH, KEY, Gateway, start_gateway
from tests.serve.test_tls import make_certificate


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """For tests in which the door, and nothing else, has something to tell in the log."""
    yield caplog
    records = caplog.get_records("call")
    assert {record.name for record in records} <= {"moorage.gateway.doors", "moorage.gateway.visitors"}
    records.clear()


def test_addresses_are_counted_apart(loud: pytest.LogCaptureFixture) -> None:
    visitors = Visitors(2)
    assert [visitors.enter("a") for _ in range(3)] == [True, True, False]
    assert visitors.enter("b")
    visitors.leave("a")
    assert [visitors.enter("a") for _ in range(2)] == [True, False]
    for address in ("a", "a", "b"):
        visitors.leave(address)
    assert repr(visitors) == "<Visitors 0 connections of 0 clients>"


def test_all_are_counted_together(loud: pytest.LogCaptureFixture) -> None:
    visitors = Visitors(0, 2)
    assert [visitors.enter(address) for address in "abcc"] == [True, True, False, False]
    visitors.leave("a")
    assert [visitors.enter(address) for address in "cd"] == [True, False]
    assert repr(visitors) == "<Visitors 2 connections of 2 clients>"
    assert ["max_connections allows" in record.getMessage() for record in loud.records] == [True, True]


def test_no_limit() -> None:
    visitors = Visitors()
    assert all(visitors.enter("a") for _ in range(10_000))


async def test_one_too_many_is_answered_and_closed(loud: pytest.LogCaptureFixture) -> None:
    async with start_gateway(max_connections_per_client=3) as gateway:
        clients = [await gateway.client() for _ in range(3)]
        for client in clients:
            assert (await client.call(HEALTH)).status == 200
        for _ in range(3):
            refused = await gateway.client()
            reply = await refused.reply()
            assert reply.start == "HTTP/1.1 503 Too many connections"
            assert (reply.error, reply.headers["connection"]) == ("ServiceUnavailable", "close")
            assert await refused.rest() == b""
        clients[0].send(b"GET /_moorage/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await clients[0].rest()
        assert (await gateway.call(HEALTH)).status == 200
    [record] = loud.records
    assert "max_connections_per_client" in record.getMessage()


async def test_there_are_no_more_connections_than_may_be(loud: pytest.LogCaptureFixture) -> None:
    async with start_gateway(max_connections=2) as gateway:
        clients = [await gateway.client() for _ in range(2)]
        for client in clients:
            assert (await client.call(HEALTH)).status == 200
        refused = await gateway.client()
        assert (await refused.reply()).error == "ServiceUnavailable"
        await clients[0].closed()
        while (await gateway.call(HEALTH)).status != 200:
            pass  # the gateway has not heard of that end yet
    assert "max_connections allows" in loud.records[0].getMessage()


async def test_sdks_try_a_refused_connection_again(loud: pytest.LogCaptureFixture) -> None:
    """Each in its own protocol: none stumbles over the refusal."""
    async with start_gateway(max_connections_per_client=1) as gateway:
        only = await gateway.client()
        assert (await only.call(HEALTH)).status == 200
        calls = [
            ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b""}),
            ("sagemaker", "list_endpoints", {}),
            ("s3", "list_buckets", {}),
            ("sts", "get_caller_identity", {}),
        ]
        for service, operation, arguments in calls:
            with pytest.raises(ClientError) as caught:
                await asyncio.to_thread(call_once_more, gateway, service, operation, arguments)
            assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 1, service
            assert caught.value.response["Error"]["Code"] == "503"


def call_once_more(gateway: Gateway, service: str, operation: str, arguments: dict[str, Any]) -> None:
    client = boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{gateway.port}",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(retries={"mode": "standard", "total_max_attempts": 2}),
    )
    try:
        getattr(client, operation)(**arguments)
    finally:
        client.close()


@asynccontextmanager
async def tls_gateway(folder: Path, **settings: Any) -> AsyncIterator[tuple[Gateway, ssl.SSLContext]]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine to make certificates with")
    certificate, key = make_certificate(folder / "tls", "gateway")
    context = ssl.create_default_context(cafile=str(certificate))
    async with start_gateway(tls_certificate=str(certificate), tls_key=str(key), **settings) as gateway:
        yield gateway, context


async def connect(gateway: Gateway, context: ssl.SSLContext) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
    writer.write(HEALTH)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return writer


async def test_with_tls_the_handshake_is_not_even_begun(
    tmp_path: Path, loud: pytest.LogCaptureFixture
) -> None:
    async with tls_gateway(tmp_path, max_connections_per_client=2) as (gateway, context):
        silent = await gateway.client()  # in the midst of its handshake, and counted
        open_one = await connect(gateway, context)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await connect(gateway, context)
        silent.close()
        for _ in range(5):  # a handshake that fails is counted no longer
            failing = await gateway.client()
            failing.send(b"GET / HTTP/1.1\r\n\r\n")
            await failing.rest()
        open_one.transport.abort()
        for _ in range(5):
            writer = await connect(gateway, context)
            writer.close()
            await writer.wait_closed()


async def test_a_door_without_descriptors_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loud: pytest.LogCaptureFixture
) -> None:
    real = socket.socket.accept
    failures = [errno.EMFILE, errno.ECONNABORTED]

    def accept(listener: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(0), "no")
        return real(listener)

    monkeypatch.setattr("moorage.gateway.doors._WITHOUT_FILES_SECONDS", 0.01)
    monkeypatch.setattr(socket.socket, "accept", accept)
    async with tls_gateway(tmp_path) as (gateway, context):
        writer = await connect(gateway, context)
        writer.close()
        await writer.wait_closed()
    assert not failures
