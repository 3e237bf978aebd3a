"""How connections come in."""

import asyncio
import socket
from contextlib import ExitStack

from tests.gateway.harness import Gateway

CLIENTS = 200
TURNS = 40


async def test_many_connections_come_in_within_few_turns_of_the_loop(gateway: Gateway) -> None:
    """With a thousand busy clients a turn takes 40 ms."""
    with ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel makes them while the loop stands still
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert f" {CLIENTS} connections" in repr(gateway.server)
