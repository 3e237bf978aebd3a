"""How the launcher asks the outbound process for an instance's link: JSON lines over a Unix socket.

    {"attach": <network>}  →  {"network": <network>, "address": "198.18.0.2"}  or  {"network": …, "error": "…"}
    {"detach": <network>}     without an answer

The process holds every link. If it dies, all links go with it, and the launcher asks for them again.
"""

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from moorage.outbound.links import Links

_log = logging.getLogger(__name__)
_LONGEST_LINE: Final = 64 * 1024


async def serve(links: Links, path: Path) -> asyncio.Server:
    """Answer on a Unix socket that only this user reaches."""
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(
        lambda reader, writer: _converse(links, reader, writer),
        path,
        limit=_LONGEST_LINE,
        start_serving=False,
    )
    path.chmod(0o600)
    await server.start_serving()
    return server


async def _converse(links: Links, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            message = json.loads(line)
            if "detach" in message:
                links.detach(message["detach"])
                continue
            network = message["attach"]
            reply = {"network": network}
            try:
                reply["address"] = await links.attach(network)
            except OSError as error:
                reply["error"] = error.strerror or str(error)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
    except ConnectionError:
        pass  # the launcher went away; it asks again for whatever it still has
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
