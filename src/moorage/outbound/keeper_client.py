"""The launcher's side of `moorage.outbound.keeper`."""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moorage import network_namespace

_LONGEST_MESSAGE: Final = 4096
_RETRY_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class KeptNetwork:
    """A network as a process enters it: by its user namespace first. `name` is for `moorage.network_namespace`."""

    name: str
    descriptors: tuple[int, int]

    def close(self) -> None:
        """Close the descriptors; the network lasts until the keeper is told to forget it."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class KeeperClient:
    """Asks the keeper behind a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<KeeperClient {self._path}>"

    async def new(self, key: str, *, linked: bool) -> KeptNetwork:
        """A new network, `linked` to the outside or not. The caller closes it.

        Raises:
            OSError: there is none; the text says why.
        """
        reply, descriptors = await self._ask(f"new {key}{' linked' * linked}")
        if len(descriptors) != 2:
            raise OSError(errno.EIO, reply.decode() or "the process that keeps networks went away")
        return KeptNetwork(f"{key}@{self._path}", (descriptors[0], descriptors[1]))

    async def lost(self) -> None:
        """Returns when the keeper that there is now, or the next one, has gone and all networks with it."""
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as holding:
                try:
                    await loop.sock_connect(holding, str(self._path))
                    await loop.sock_sendall(holding, b"hold")
                    while await loop.sock_recv(holding, _LONGEST_MESSAGE):
                        pass
                except ConnectionResetError:
                    return
                except OSError:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                return

    async def forget(self, key: str) -> None:
        """After the last process in it is gone.

        Raises:
            OSError: the keeper is gone, and the network with it.
        """
        await self._ask(f"forget {key}")

    async def _ask(self, message: str) -> tuple[bytes, list[int]]:
        """A keeper that is just starting is waited for, for some seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as asking:
            while True:
                try:
                    await loop.sock_connect(asking, str(self._path))
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    if loop.time() > deadline:
                        raise
                    await asyncio.sleep(_RETRY_SECONDS)
            await loop.sock_sendall(asking, message.encode())
            return await network_namespace.receive_descriptors(asking, 2)
