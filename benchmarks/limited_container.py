"""A container that does so many invocations a second and no more, one after the other, in the order they came.

Usage: python benchmarks/limited_container.py PORT PER_SECOND

It takes whatever comes and lets it wait, as most model servers do. The time of an invocation passes on the clock, so
that the container leaves its core to the others.
"""

import asyncio
import sys

import uvloop

from echo_container import Echo


class Limited(Echo):
    """Echoes when it is the invocation's turn."""

    interval = 0.0
    free_at = 0.0

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        loop = asyncio.get_running_loop()
        Limited.free_at = max(Limited.free_at, loop.time()) + self.interval
        loop.call_at(Limited.free_at, self._reply_if_wanted, body)

    def _reply_if_wanted(self, body: bytes) -> None:
        if not self._transport.is_closing():
            self.reply(body)


async def main(port: int, per_second: float) -> None:
    Limited.interval = 1.0 / per_second
    server = await asyncio.get_running_loop().create_server(Limited, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
