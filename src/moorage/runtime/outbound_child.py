"""Starts the outbound process, and finds out by that whether instances can have networks of their own here.

There is no other way to know: it takes network namespaces, links between them and a firewall table inside of one,
each of which a kernel, a container engine or a security module may withhold.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from moorage import network_namespace
from moorage.config import Settings
from moorage.launchers.isolation import Network
from moorage.runtime.children import Child

_POLL_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 20.0

StopChild = Callable[[Child, float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Which network instances get, and why it is not the one of the settings (empty: it is). `keeps`: the process
    makes the networks, since this one may not. `child` is None where it is not needed."""

    network: Network
    keeps: bool = False
    why_not: str = ""
    child: Child | None = None


async def start_networks(settings: Settings, url: str, plain_url: str) -> Networks:
    """Start the process if the settings ask for one, and wait until it can do its work or says why not.

    `url` is the server's own, for instances that call it, and `plain_url` that without TLS.
    """
    wanted = Network(settings.container_network)
    if wanted is Network.HOST:
        return Networks(network=wanted)
    keeps = network_namespace.why_unusable() is not None
    if wanted is Network.ISOLATED and not keeps:
        return Networks(network=wanted)
    given_up: list[str] = []

    def give_up(sentence: str) -> bool:
        given_up.append(sentence)
        return not is_ready

    is_ready = False
    child = Child(
        "outbound",
        (sys.executable, "-m", "moorage.runtime.outbound_process", *(("--keep",) if keeps else ())),
        environment={
            **os.environ,
            "MOORAGE_SETTINGS": settings.to_json(),
            "MOORAGE_URL": url,
            "MOORAGE_PLAIN_URL": plain_url,
        },
        socket=settings.outbound_socket,
        gives_up=give_up,
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not given_up and not settings.outbound_socket.exists():
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        given_up.append(f"the process for them was not ready within {_PATIENCE_SECONDS:g} seconds")
    if given_up:
        await child.stop(signal.SIGKILL, timeout_seconds=1.0)
        return Networks(network=Network.HOST, why_not=given_up[0])
    is_ready = True
    return Networks(network=wanted, keeps=keeps, child=child)
