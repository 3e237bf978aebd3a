"""One `GET /ping` of a container, over a connection of its own."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from moorage.launchers.lifecycle import PingOutcome

_MOST_BYTES = 8 * 1024
_DETAIL_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """How a ping went; `status` and `detail` (the start of the body) only if the container answered."""

    outcome: PingOutcome
    status: int = 0
    detail: str = ""


async def ping(host: str, port: int, *, timeout_seconds: float) -> PingResult:
    """Ask the container for its health. Never raises for anything that the container does."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _ping(host, port)
    except TimeoutError:
        return PingResult(outcome=PingOutcome.SILENT)


async def _ping(host: str, port: int) -> PingResult:
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=_MOST_BYTES)
    except OSError:
        return PingResult(outcome=PingOutcome.REFUSED)
    try:
        writer.write(f"GET /ping HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        return await _read_reply(reader)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return PingResult(outcome=PingOutcome.BROKEN)
    finally:
        with suppress(OSError):
            writer.close()


async def _read_reply(reader: asyncio.StreamReader) -> PingResult:
    head = await reader.readuntil(b"\r\n\r\n")
    version, status_text, *_ = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not HTTP/1")
    status = int(status_text)
    body = await _read_short_body(reader, head)
    if status == 200:
        return PingResult(outcome=PingOutcome.OK, status=status)
    detail = " ".join(body.decode("utf-8", "replace").split())[:_DETAIL_CHARACTERS]
    return PingResult(outcome=PingOutcome.WRONG, status=status, detail=detail)


async def _read_short_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body if it is short and of known length: so that a simple server does not meet a broken pipe."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and 0 < int(value) <= _MOST_BYTES:
            return await reader.readexactly(int(value))
    return b""
