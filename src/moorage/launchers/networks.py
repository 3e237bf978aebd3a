"""Where an instance listens during one start: on the machine's network, or in a network of its own.

Each of the three kinds takes a place before the start, lets the container call out before its command begins, and
gives the place back when the last process in it is gone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from moorage.launchers.ports import OWN_NETWORK_PORT, PORTS_PER_INSTANCE, NoFreePort, Ports
from moorage.outbound.client import OutboundClient
from moorage.outbound.keeper_client import KeeperClient, KeptNetwork

_OWN_NETWORK_SAFE_PORTS: Final = "21000-21999"
_PAUSE_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an instance has of a network during one start, named by `key`. `safe_ports` are for further listeners of
    its own (SAGEMAKER_SAFE_PORT_RANGE). `kept` is the network that the launch chain has to enter, if any."""

    key: str
    port: int
    safe_ports: str
    kept: KeptNetwork | None = None


class Networks(Protocol):
    async def take(
        self, key: str, *, linked: bool, stopped: asyncio.Event, on_wait: Callable[[str], None]
    ) -> Place | None:
        """A place for one start; None if `stopped` was set before there was one. `linked`: it may call out.

        A shortage that passes is waited out; `on_wait` is told of it once.

        Raises:
            OSError: there is none.
        """

    async def let_out(self, network: str) -> None:
        """Let the container call out of the network namespace of that name.

        Raises:
            OSError: it cannot.
        """

    async def give_back(self, place: Place, network: str) -> None:
        """Nothing of the instance is left in its place. `network` as its state had it."""


class MachineNetwork:
    """The machine's own: a block of ports for each instance. `make_room` ends those that hold too many sockets."""

    def __init__(self, ports: Ports, make_room: Callable[[], Awaitable[None]]) -> None:
        self._ports = ports
        self._make_room = make_room

    async def take(
        self, key: str, *, linked: bool, stopped: asyncio.Event, on_wait: Callable[[str], None]
    ) -> Place | None:
        said = False
        while not stopped.is_set():
            try:
                port = self._ports.take()
                return Place(key=key, port=port, safe_ports=f"{port + 1}-{port + PORTS_PER_INSTANCE - 1}")
            except NoFreePort as error:
                if not said:
                    said = True
                    on_wait(str(error))
                await self._make_room()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_SECONDS):
                        await stopped.wait()
        return None

    async def let_out(self, network: str) -> None:
        """Everything is open to it."""

    async def give_back(self, place: Place, network: str) -> None:
        self._ports.give_back(place.port)


class OwnNetworks:
    """A network namespace for each start, which the launcher makes as it starts the chain. Needs root."""

    def __init__(self, outbound: OutboundClient | None) -> None:
        self._outbound = outbound

    async def take(
        self, key: str, *, linked: bool, stopped: asyncio.Event, on_wait: Callable[[str], None]
    ) -> Place | None:
        return Place(key=key, port=OWN_NETWORK_PORT, safe_ports=_OWN_NETWORK_SAFE_PORTS)

    async def let_out(self, network: str) -> None:
        if self._outbound is not None:
            await self._outbound.attach(network)

    async def give_back(self, place: Place, network: str) -> None:
        if self._outbound is not None:
            self._outbound.detach(network)


class KeptNetworks:
    """A network for each start that another process makes and keeps, for a server that is not root."""

    def __init__(self, keeper: KeeperClient) -> None:
        self._keeper = keeper

    async def take(
        self, key: str, *, linked: bool, stopped: asyncio.Event, on_wait: Callable[[str], None]
    ) -> Place | None:
        kept = await self._keeper.new(key, linked=linked)
        return Place(key=key, port=OWN_NETWORK_PORT, safe_ports=_OWN_NETWORK_SAFE_PORTS, kept=kept)

    async def let_out(self, network: str) -> None:
        """It is linked from the beginning."""

    async def give_back(self, place: Place, network: str) -> None:
        try:
            await self._keeper.forget(place.key)
        except OSError as error:
            _log.debug("a network was not given back, since its keeper is gone: %s", error)
