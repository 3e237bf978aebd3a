"""A container for measuring asynchronous inference: streams its input back, after a while.

Its port is in `SAGEMAKER_BIND_TO_PORT`, as the contract has it. While the file `GATE` does not exist it keeps every
invocation waiting; `DELAY_SECONDS` is what it takes for each. With `REPLY=time` its reply is when the request's head
arrived (seconds since the epoch) instead.
"""

import asyncio
import os
import time
from pathlib import Path

import uvloop

GATE = Path(os.environ.get("GATE", "/"))
DELAY_SECONDS = float(os.environ.get("DELAY_SECONDS", "0"))
TIME = os.environ.get("REPLY") == "time"
_PIECE = 256 * 1024


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            arrived = time.time()
            await answer(head, arrived, reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(
    head: bytes, arrived: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    left = int(headers.get(b"content-length", b"0"))
    if head.startswith(b"GET /ping"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return
    while not GATE.exists():
        await asyncio.sleep(0.05)
    if DELAY_SECONDS:
        await asyncio.sleep(DELAY_SECONDS)
    if TIME:
        await reader.readexactly(left)
        reply = f"{arrived:.6f}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply), reply))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        writer.write(piece)
        await writer.drain()


async def main() -> None:
    port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    server = await asyncio.start_server(
        serve, os.environ.get("SAGEMAKER_BIND_TO_HOST", "127.0.0.1"), port, limit=_PIECE, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
