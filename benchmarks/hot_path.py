"""The gateway's way of an invocation without a kernel in it: for counting its instructions (instructions.py).

Usage: python benchmarks/hot_path.py COUNT < REQUEST

It is the gateway itself on a loop whose sockets are not there: what it opens is given transports that count what is
written. The request on standard input is a signed InvokeEndpoint; the container's reply is its body.
"""

import asyncio
import socket
import sys
from typing import Any, cast

import uvloop

from bare_gateway import gateway
from moorage.runtime.gateway_process import spare_the_collector

WARM_UP = 300
"""By then the gateway knows the key and the path, and the interpreter has specialised its code."""


class Transport:
    """Takes all that is written to it."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1

    def writelines(self, data: list[bytes]) -> None:
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        """There is nothing to hold back."""

    resume_reading = close = abort = pause_reading


class Loop(uvloop.Loop):
    """Opens nothing, and keeps what would have been told of connections."""

    client: asyncio.Protocol
    transport: Transport
    upstream: asyncio.Protocol

    async def connect_accepted_socket(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        self.client = protocol_factory()
        self.transport = connect(self.client)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        sock.close()

    async def create_connection(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        self.upstream = protocol_factory()
        return connect(self.upstream), self.upstream


def connect(protocol: asyncio.Protocol) -> Transport:
    transport = Transport()
    protocol.connection_made(cast(asyncio.Transport, transport))
    return transport


async def invoke(count: int, request: bytes) -> None:
    loop = cast(Loop, asyncio.get_running_loop())
    body = request.partition(b"\r\n\r\n")[2]
    reply = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        server = gateway(listener, container_port=9)
        async with server.running(with_feed=False):
            await asyncio.sleep(0.1)  # until the connection is accepted
            client, transport = loop.client, loop.transport
            client.data_received(request)
            await asyncio.sleep(0.1)  # until it has connected upstream
            upstream = loop.upstream
            upstream.data_received(reply)
            spare_the_collector()
            for _ in range(WARM_UP + count):
                client.data_received(request)
                upstream.data_received(reply)
            if transport.writes != 1 + WARM_UP + count:
                raise SystemExit(f"{transport.writes} replies to {1 + WARM_UP + count} requests")
            client.connection_lost(None)


if __name__ == "__main__":
    loop = Loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(invoke(int(sys.argv[1]), sys.stdin.buffer.read()))
