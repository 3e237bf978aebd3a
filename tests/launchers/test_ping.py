"""One ping against servers that answer well, badly, or not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moorage.launchers.lifecycle import PingOutcome
from moorage.launchers.ping import PingResult, ping


@asynccontextmanager
async def server_that_sends(reply: bytes, *, hang: bool = False) -> AsyncIterator[int]:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1:")
        writer.write(reply)
        if hang:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        done.set()


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", PingResult(outcome=PingOutcome.OK, status=200)),
        (b"HTTP/1.0 200\r\n\r\n", PingResult(outcome=PingOutcome.OK, status=200)),
        (
            b"HTTP/1.1 503 Busy\r\ncontent-length: 14\r\n\r\nmodel  loading",
            PingResult(outcome=PingOutcome.WRONG, status=503, detail="model loading"),
        ),
        (b"HTTP/1.1 404 No\r\n\r\n", PingResult(outcome=PingOutcome.WRONG, status=404)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", PingResult(outcome=PingOutcome.WRONG, status=204)),
        (b"SSH-2.0-OpenSSH\r\n\r\n", PingResult(outcome=PingOutcome.BROKEN)),
        (b"HTTP/1.1 abc\r\n\r\n", PingResult(outcome=PingOutcome.BROKEN)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", PingResult(outcome=PingOutcome.BROKEN)),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, PingResult(outcome=PingOutcome.BROKEN)),
        (b"HTTP/1.1 200 OK\r\n", PingResult(outcome=PingOutcome.BROKEN)),
        (b"", PingResult(outcome=PingOutcome.BROKEN)),
    ],
)
async def test_what_comes_back(reply: bytes, result: PingResult) -> None:
    async with server_that_sends(reply) as port:
        assert await ping("127.0.0.1", port, timeout_seconds=5) == result


async def test_a_good_head_is_enough_even_if_the_connection_stays_open() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with server_that_sends(head, hang=True) as port:
        assert (await ping("127.0.0.1", port, timeout_seconds=5)).outcome is PingOutcome.OK


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_may_come_byte_by_byte(host: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 500 No\r\nContent-Length: 11\r\n\r\nnot healthy":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)  # the other side, on this loop, reads
        writer.close()

    async with await asyncio.start_server(serve, host, 0) as server:
        port = server.sockets[0].getsockname()[1]
        expected = PingResult(outcome=PingOutcome.WRONG, status=500, detail="not healthy")
        assert await ping(host, port, timeout_seconds=5) == expected


async def test_no_answer_in_time_is_silence() -> None:
    async with server_that_sends(b"HTTP/1.1 200", hang=True) as port:
        assert await ping("127.0.0.1", port, timeout_seconds=0.05) == PingResult(outcome=PingOutcome.SILENT)


async def test_a_closed_port_refuses() -> None:
    async with server_that_sends(b"") as port:
        pass
    assert await ping("127.0.0.1", port, timeout_seconds=5) == PingResult(outcome=PingOutcome.REFUSED)
