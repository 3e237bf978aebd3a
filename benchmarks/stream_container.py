"""A container that streams what it is asked for, as fast as it can or on a clock: for measuring what is before it.

Usage: python benchmarks/stream_container.py PORT

The body of an invocation: `{"parts": 1000, "bytes": 50, "seconds": 0}`, where `seconds` is the pause between parts.
"""

import asyncio
import json
import sys
from typing import cast

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BATCH = 500


class Streamer(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        order = json.loads(b"".join(self._body))
        self._body.clear()
        self._task = asyncio.create_task(self._stream(order["parts"], order["bytes"], order["seconds"]))

    async def _stream(self, parts: int, size: int, seconds: float) -> None:
        chunk = b"%x\r\n%b\r\n" % (size, b"." * size)
        self._transport.write(HEAD)
        if seconds:
            for _ in range(parts):
                self._transport.write(chunk)
                await asyncio.sleep(seconds)
        else:
            for sent in range(0, parts, BATCH):
                self._transport.write(chunk * min(BATCH, parts - sent))
                await self._can_write.wait()
        self._transport.write(b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Streamer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
