"""Ports for containers that share the machine's network."""

import random
import socket
from typing import Final

from moorage.launchers.procfs import ephemeral_ports

PORTS_PER_INSTANCE: Final = 8
"""The container's own port, and the seven after it as its SAGEMAKER_SAFE_PORT_RANGE."""
OWN_NETWORK_PORT: Final = 8080
"""Of a container with a network of its own: what AWS's containers listen on, whether they are told or not."""
_LOWEST_PORT: Final = 10_000


class NoFreePort(OSError):
    """Every port is taken, at least for now; the text says so."""


class Ports:
    """Hands out blocks of free ports, outside those from which the kernel serves outgoing connections.

    Between our look and the container's bind anyone may take a port; that a block is not used again soon, and
    that nobody else picks here at random, makes it rare. Who answers there in its place is not believed
    (`procfs.listen_alone`).
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._taken: set[int] = set()
        ephemeral = ephemeral_ports()
        below = range(_LOWEST_PORT, max(_LOWEST_PORT, ephemeral.start), PORTS_PER_INSTANCE)
        above = range(ephemeral.stop, 65_536 - PORTS_PER_INSTANCE, PORTS_PER_INSTANCE)
        blocks: list[int] = [*below[:-1], *above] or list(range(_LOWEST_PORT, 65_000, PORTS_PER_INSTANCE))
        random.shuffle(blocks)
        self._blocks = blocks
        self._next = 0

    def take(self) -> int:
        for _ in range(len(self._blocks)):
            port = self._blocks[self._next]
            self._next = (self._next + 1) % len(self._blocks)
            if port not in self._taken and self._is_free(port):
                self._taken.add(port)
                return port
        raise NoFreePort(f"no free port is left on {self._host} for another instance")

    def take_all(self) -> list[int]:
        """Every block that is not taken yet, free or not."""
        rest = [port for port in self._blocks if port not in self._taken]
        self._taken.update(rest)
        return rest

    def give_back(self, port: int) -> None:
        self._taken.discard(port)

    def _is_free(self, first: int) -> bool:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        for port in range(first, first + PORTS_PER_INSTANCE):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self._host, port))
                except OSError:
                    return False
        return True
