"""Ends of a connection that are others with TLS: it cannot be ended in one direction, and each side says goodbye."""

import asyncio
import socket
import ssl
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from moorage.gateway.tls import Certificate, complaint
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


# --- certificates ---------------------------------------------------------------------------------------


def shown(port: int) -> str:
    """The common name of the certificate that a client sees which accepts keys of every kind, and the kind."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain) as tls,
    ):
        assert tls.selected_alpn_protocol() == "http/1.1"
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    return str(certificate.subject.rfc4514_string())


@pytest.mark.parametrize("kinds", [("ecdsa", "rsa"), ("rsa", "ecdsa"), ("rsa", "rsa"), ("ecdsa", "ecdsa")])
async def test_new_connections_see_a_new_certificate_whatever_kind_of_key_it_has(
    tmp_path: Path, kinds: tuple[str, str]
) -> None:
    certificate, key = make_certificate(tmp_path, "old", kind=kinds[0])
    async with start_gateway(tls_certificate=str(certificate), tls_key=str(key)) as gateway:
        assert await asyncio.to_thread(shown, gateway.port) == "CN=old"
        before = await asyncio.to_thread(tls_client, gateway.port, certificate)
        make_certificate(tmp_path, "new", kind=kinds[1])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await asyncio.to_thread(shown, gateway.port) != "CN=new":
                await asyncio.sleep(0.05)
        with before:  # and what is open stays
            await asyncio.to_thread(before.sendall, HEALTH)
            assert (await asyncio.to_thread(before.recv, 4096)).startswith(b"HTTP/1.1 200")


async def test_a_new_key_that_has_a_password_is_not_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "old")
    async with start_gateway(tls_certificate=str(certificate), tls_key=str(key)) as gateway:
        make_certificate(tmp_path, "new", protection=("-passout", "pass:secret"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "the TLS certificate stays as it was" not in caplog.text:
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(shown, gateway.port) == "CN=old"
    caplog.clear()


async def test_a_certificate_that_ends_soon_is_said_at_the_start_and_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "a", days="13")
    async with start_gateway(tls_certificate=str(certificate), tls_key=str(key)):
        for number in (1, 2):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while caplog.text.count("Put another one in its place") < number:
                    await asyncio.sleep(0.05)
            make_certificate(tmp_path, "b", days="3")
    assert str(certificate) in caplog.text
    caplog.clear()


NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-1, 14.1, ""),
        (-1, 14, "expires on 2026-12-15 00:00 UTC, in 14.0 days"),
        (-1, 0.5, "expires on 2026-12-01 12:00 UTC, in 0.5 days"),
        (-1, 0, "has expired on 2026-12-01 00:00 UTC"),
        (-2, -1, "has expired on 2026-11-30 00:00 UTC"),
        (0, 100, ""),
        (1, 100, "is not valid before 2026-12-02 00:00 UTC"),
        (1, 3, "is not valid before 2026-12-02 00:00 UTC"),
    ],
)
def test_what_is_said_of_a_certificate(begins: float, ends: float, said: str) -> None:
    sentence = complaint(NOW + timedelta(days=begins), NOW + timedelta(days=ends), NOW)
    assert sentence.startswith(said)
    assert bool(sentence) is bool(said)


def test_a_certificate_is_complained_of_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate = Certificate(*make_certificate(tmp_path, "a", days="13"))
    now = datetime.now(UTC)
    for hours in (0, 1, 23):
        certificate.complain(now + timedelta(hours=hours))
    assert len(caplog.records) == 1
    certificate.complain(now + timedelta(hours=24))
    assert len(caplog.records) == 2
    caplog.clear()
