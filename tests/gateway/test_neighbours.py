"""What waits at the listener of a gateway that does not accept is taken by another."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import HEALTH, Client, start_gateway
from tests.serve.test_tls import make_certificate


@pytest.fixture
def neighbour() -> socket.socket:
    """A listener at which nobody accepts."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


async def test_connections_that_nobody_accepts_are_taken(neighbour: socket.socket) -> None:
    port = neighbour.getsockname()[1]
    with neighbour:
        async with start_gateway(neighbours=[neighbour]):
            clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(40)]
            assert {(await client.call(HEALTH)).status for client in clients} == {200}
            for client in clients:
                await client.closed()


async def test_they_count_as_others_do(neighbour: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    port = neighbour.getsockname()[1]
    with neighbour:
        async with start_gateway(neighbours=[neighbour], max_connections_per_client=1) as gateway:
            first = await gateway.client()
            assert (await first.call(HEALTH)).status == 200
            second = Client(*await asyncio.open_connection("127.0.0.1", port))
            assert (await second.reply()).status == 503
            await second.closed()
    caplog.clear()


async def test_with_tls(neighbour: socket.socket, tmp_path: Path) -> None:
    port = neighbour.getsockname()[1]
    certificate, key = make_certificate(tmp_path, "a")
    settings: dict[str, Any] = {"tls_certificate": str(certificate), "tls_key": str(key)}
    context = ssl.create_default_context(cafile=str(certificate))
    with neighbour:
        async with start_gateway(neighbours=[neighbour], **settings):
            client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
            assert (await client.call(HEALTH)).status == 200
            await client.closed()


async def test_a_neighbours_listener_stays_its_own(neighbour: socket.socket) -> None:
    with neighbour:
        async with start_gateway(neighbours=[neighbour]):
            pass
        with socket.create_connection(neighbour.getsockname()):
            neighbour.setblocking(True)
            neighbour.settimeout(5)
            neighbour.accept()[0].close()
