"""Ends of a connection that are others with TLS: it cannot be ended in one direction, and each side says goodbye."""

import asyncio
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway.harness import HEALTH, start_gateway
from tests.serve.test_tls import make_certificate

PATIENCE_SECONDS = 10.0
REFUSED = {
    "nonsense": (b"nonsense\r\n\r\n" + b"x" * 100_000, 400),
    "a repeated header": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "too large a head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    "half a head": (b"GET / HTTP/1.1\r\nHost:", 400),
    "no signature, and the body is not here": (
        b"POST /endpoints/a/invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\nx",
        403,
    ),
}


def tls_client(port: int, certificate: Path) -> ssl.SSLSocket:
    """Unlike one of asyncio it reads nothing, no goodbye either, unless it is told to."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
    return context.wrap_socket(plain)


def reply_to(data: bytes, port: int, certificate: Path) -> bytes:
    with tls_client(port, certificate) as sock:
        sock.sendall(data)
        return sock.recv(4096)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_arrives(tmp_path: Path, name: str) -> None:
    data, status = REFUSED[name]
    certificate, key = make_certificate(tmp_path, "a")
    async with start_gateway(
        tls_certificate=str(certificate), tls_key=str(key), header_timeout_seconds=0.5
    ) as gateway:
        reply = await asyncio.to_thread(reply_to, data, gateway.port, certificate)
        assert reply.startswith(b"HTTP/1.1 %d " % status)


async def test_who_is_idle_and_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    """The gateway would say in the log that it was cut off."""
    certificate, key = make_certificate(tmp_path, "a")
    with ExitStack() as stack:
        async with start_gateway(
            tls_certificate=str(certificate), tls_key=str(key), drain_timeout_seconds=PATIENCE_SECONDS
        ) as gateway:
            sock = stack.enter_context(await asyncio.to_thread(tls_client, gateway.port, certificate))
            await asyncio.to_thread(sock.sendall, HEALTH)
            assert (await asyncio.to_thread(sock.recv, 4096)).startswith(b"HTTP/1.1 200")
