"""The least a container can do: answers every request with its own body. For measuring what stands before it.

Usage: python benchmarks/echo_container.py PORT, or with the port in `SAGEMAKER_BIND_TO_PORT` as the contract has it.
`--closing` as the last argument closes the connection after each reply.
"""

import asyncio
import os
import sys
from typing import cast

import httptools
import uvloop

CLOSING = sys.argv[-1] == "--closing"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + b"Connection: close\r\n" * CLOSING


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        self.reply(body)

    def reply(self, body: bytes) -> None:
        self._transport.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        if CLOSING:
            self._transport.close()


async def main(port: int, host: str = "127.0.0.1") -> None:
    server = await asyncio.get_running_loop().create_server(Echo, host, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = [each for each in sys.argv[1:] if each != "--closing"] or [
        os.environ["SAGEMAKER_BIND_TO_PORT"]
    ]
    uvloop.run(main(int(arguments[0]), *arguments[1:]))
