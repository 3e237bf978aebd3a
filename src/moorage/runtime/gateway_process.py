"""The gateway process: `python -m moorage.runtime.gateway_process LISTENER_FD[,FD...] [INTERNAL_LISTENER_FD]`.

The first is its own listener, what follows with commas are those of the other gateways. Settings are in
`MOORAGE_SETTINGS`.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import uvloop

from moorage import heap
from moorage.audit import AuditLog
from moorage.auth.access import Access, OpenToken
from moorage.auth.credentials import read_root_key
from moorage.auth.sealing import Sealer, create_sealer
from moorage.auth.sessions import open_token
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.runtime import logs
from moorage.storage.s3_accounts import S3Accounts

_GARBAGE_THRESHOLD = 50_000


async def serve(
    settings: Settings,
    listener: socket.socket,
    internal: socket.socket | None,
    neighbours: Sequence[socket.socket],
) -> None:
    """Serve the listeners until SIGTERM or SIGINT, then drain."""
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    access = Access(key, open_token=_token_opener(settings))
    verifier = Verifier(
        access.credentials,
        open_session=access.open_session,
        allow_unsigned_payload=settings.allow_unsigned_payload,
    )
    server = GatewayServer(
        settings=settings,
        verifier=verifier,
        access=access,
        s3_signer=S3Signer(S3Accounts.of_environment(os.environ)),
        listener=listener,
        internal=internal,
        neighbours=neighbours,
        audit=AuditLog(settings.audit_file),
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server.running():
        spare_the_collector()
        await stopped.wait()
        # As long as anybody holds a listener, the kernel takes connections for it, and nobody would serve them.
        for neighbour in neighbours:
            neighbour.close()


def _token_opener(settings: Settings) -> OpenToken:
    """Most gateways never see a session, so what opens them is made for the first."""

    @cache
    def sealer() -> Sealer:
        return create_sealer(secret_key=settings.secret_key, path=settings.secret_key_file)

    return lambda token: open_token(sealer(), token.decode("latin-1"), datetime.now(UTC))


def spare_the_collector() -> None:
    """Nothing on the way of a request makes cycles that must be found soon, and looking for them costs."""
    gc.collect()
    heap.give_back()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 50, 50)


def main() -> None:
    logs.configure("gateway")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the audit log is opened anew without
    settings = Settings.from_json(os.environ["MOORAGE_SETTINGS"])
    listener, *neighbours = map(_listener, sys.argv[1].split(","))
    internal = _listener(sys.argv[2]) if len(sys.argv) > 2 else None
    uvloop.run(serve(settings, listener, internal, neighbours))


def _listener(descriptor: str) -> socket.socket:
    listener = socket.socket(fileno=int(descriptor))
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    main()
