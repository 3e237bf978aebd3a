"""The process that carries the calls of instances out of their networks.

Usage: python -m moorage.runtime.outbound_process [--keep]. Settings are in `MOORAGE_SETTINGS`, the server's own URL
in `MOORAGE_URL`, that without TLS in `MOORAGE_PLAIN_URL`. With `--keep` it also makes and keeps the networks, in a
user namespace, for a server that is not root.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop

from moorage import heap, network_namespace
from moorage.config import Settings
from moorage.outbound.keeper import Keeper
from moorage.outbound.links import Links
from moorage.outbound.policy import Address, Policy, name_servers
from moorage.outbound.relay import Relay
from moorage.outbound.service import serve
from moorage.runtime import last_words, logs

_RESOLV_CONF: Final = Path("/etc/resolv.conf")


class _CurrentPolicy:
    """With the machine's name servers as they are now: they change when a laptop changes its network."""

    def __init__(self, url: str, plain_url: str) -> None:
        server = _address(url)
        self._read_at = -1
        self._policy = Policy(server=server, server_port=server[1], plain=_address(plain_url))

    def __call__(self) -> Policy:
        try:
            changed_at = _RESOLV_CONF.stat().st_mtime_ns
            if changed_at != self._read_at:
                found = name_servers(_RESOLV_CONF.read_text(errors="replace"))
                self._policy = replace(self._policy, name_servers=found)
                self._read_at = changed_at
        except FileNotFoundError:
            return self._policy
        return self._policy


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


async def run(settings: Settings, url: str, plain_url: str, *, keeps: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        links = Links()
        await links.open()
        relay = Relay(_CurrentPolicy(url, plain_url))
        await relay.serve(links.listener, links.resolver)
        stack.push_async_callback(relay.close)
        if keeps:
            keeper = Keeper(links)
            keeper.listen(settings.outbound_socket)
            stack.callback(keeper.close)
        else:
            server = await serve(links, settings.outbound_socket)
            stack.callback(server.close)
        heap.give_back()
        await stopped.wait()


def main() -> int:
    logs.configure("outbound")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = Settings.from_json(os.environ["MOORAGE_SETTINGS"])
    keeps = "--keep" in sys.argv[1:]
    try:
        if keeps:
            network_namespace.enter_new_user_namespace()  # before there are threads
        urls = os.environ["MOORAGE_URL"], os.environ["MOORAGE_PLAIN_URL"]
        uvloop.run(run(settings, *urls, keeps=keeps))
    except OSError as error:
        who = "users" if keeps else "servers"
        return last_words.leave(
            f"this machine does not let its {who} make networks ({error.strerror or error})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
