"""The gateway process: `python -m moorage.runtime.gateway_process LISTENER_FD [INTERNAL_LISTENER_FD]`.

Settings are in `MOORAGE_SETTINGS`.
"""

import asyncio
import gc
import os
import signal
import socket
import sys

import uvloop

from moorage.auth.credentials import read_root_key
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.server import GatewayServer
from moorage.runtime import logs

_GARBAGE_THRESHOLD = 50_000


async def serve(settings: Settings, listener: socket.socket, internal: socket.socket | None) -> None:
    """Serve the listeners until SIGTERM or SIGINT, then drain."""
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    verifier = Verifier({key.access_key_id: key}, allow_unsigned_payload=settings.allow_unsigned_payload)
    server = GatewayServer(settings=settings, verifier=verifier, listener=listener, internal=internal)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server.running():
        spare_the_collector()
        await stopped.wait()


def spare_the_collector() -> None:
    """Nothing on the way of a request makes cycles that must be found soon, and looking for them costs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 50, 50)


def main() -> None:
    logs.configure("gateway")
    settings = Settings.from_json(os.environ["MOORAGE_SETTINGS"])
    listener, *more = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    uvloop.run(serve(settings, listener, more[0] if more else None))


if __name__ == "__main__":
    main()
