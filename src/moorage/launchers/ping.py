"""One `GET /ping` of a container, over a connection of its own.

Not over one that is kept: many servers close theirs after 5 seconds, which is when the next ping is due, and one that
serves a single connection at a time would have it taken by us. There may be a thousand containers, so the connection
is a bare socket: streams, transports and the search for addresses cost more than the ping.
"""

import asyncio
import socket
from dataclasses import dataclass

from moorage import network_namespace
from moorage.control_characters import plain
from moorage.launchers.lifecycle import PingOutcome

_MOST_BYTES = 8 * 1024
_DETAIL_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """How a ping went; `status` and `detail` (the start of the body) only if the container answered."""

    outcome: PingOutcome
    status: int = 0
    detail: str = ""


async def ping(host: str, port: int, *, network: str = "", timeout_seconds: float) -> PingResult:
    """Ask the container for its health, in its network namespace if `network` names one. Never raises for anything
    that the container does."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _ping(host, port, network)
    except TimeoutError:
        return PingResult(outcome=PingOutcome.SILENT)


async def _ping(host: str, port: int, network: str) -> PingResult:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = await network_namespace.open_socket(network, family) if network else socket.socket(family)
    except OSError:
        return PingResult(outcome=PingOutcome.REFUSED)
    with sock:
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (host, port))
        except OSError:
            return PingResult(outcome=PingOutcome.REFUSED)
        try:
            request = f"GET /ping HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(sock, request.encode())
            return await _read_reply(sock)
        except (OSError, ValueError):
            return PingResult(outcome=PingOutcome.BROKEN)


async def _read_reply(sock: socket.socket) -> PingResult:
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > _MOST_BYTES:
            raise ValueError("the head is too long")
        received += await _receive(sock)
    head, body = received[:end], received[end + 4 :]
    version, status_text, *_ = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not HTTP/1")
    status = int(status_text)
    length = _short_length(head)
    while len(body) < length:  # so that a simple server does not meet a broken pipe
        body += await _receive(sock)
    if status == 200:
        return PingResult(outcome=PingOutcome.OK, status=status)
    detail = " ".join(plain(body[:length].decode("utf-8", "replace")).split())[:_DETAIL_CHARACTERS]
    return PingResult(outcome=PingOutcome.WRONG, status=status, detail=detail)


async def _receive(sock: socket.socket) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(sock, _MOST_BYTES)
    if not data:
        raise ValueError("the reply ended early")
    return data


def _short_length(head: bytes) -> int:
    """How long the body is, if that is known and not much; otherwise 0."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and 0 < int(value) <= _MOST_BYTES:
            return int(value)
    return 0
