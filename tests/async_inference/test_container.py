"""A call of a container that goes away at the worst moment, over a real connection."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from moorage.async_inference.container import ContainerCall, NotConnected, ReplyBroken
from moorage.routing.table import Instance

RESET = struct.pack("ii", 1, 0)


async def body() -> AsyncIterator[bytes]:
    yield b"hello"


async def test_a_connection_that_breaks_before_anything_is_sent_is_none() -> None:
    """The invocation has not reached the container: it was not the cause of its death."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        instance = Instance(instance_id="i-1", host="127.0.0.1", port=listener.getsockname()[1], generation=1)
        async with ContainerCall(instance, connect_timeout_seconds=5) as call:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            accepted.close()
            while call._connection is not None:  # until its loop has seen it
                await asyncio.sleep(0.01)
            call.send(b"POST /invocations HTTP/1.1\r\ncontent-length: 5\r\n\r\n", body())
            with pytest.raises(NotConnected):
                async with asyncio.timeout(5):
                    await call.reply()


async def test_a_connection_that_breaks_afterwards_is_a_broken_reply() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        instance = Instance(instance_id="i-1", host="127.0.0.1", port=listener.getsockname()[1], generation=1)
        async with ContainerCall(instance, connect_timeout_seconds=5) as call:
            accepted, _ = listener.accept()
            call.send(b"POST /invocations HTTP/1.1\r\ncontent-length: 5\r\n\r\n", body())
            with accepted:
                accepted.setblocking(False)
                received = b""
                while not received.endswith(b"hello"):
                    received += await asyncio.get_running_loop().sock_recv(accepted, 1000)
            with pytest.raises(ReplyBroken):
                async with asyncio.timeout(5):
                    await call.reply()
