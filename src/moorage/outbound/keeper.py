"""Keeps instances' networks for a server that is not root, and makes sockets in them for its other processes.

Over a Unix socket, one message each way (SOCK_SEQPACKET), descriptors beside it:

    new KEY [linked]      →  descriptors: the user namespace, the network namespace
    socket KEY FAMILY     →  descriptor: a socket in that network
    forget KEY            →  ok
    hold                  →  ok; the connection stays open for as long as the keeper lives

What cannot be done is answered with a sentence and without a descriptor. The networks are reached through this
process alone: if it dies, the instances in them have to be started anew.
"""

import asyncio
import errno
import logging
import os
import socket
from pathlib import Path
from typing import Final

from moorage.outbound.links import Links

_LONGEST_MESSAGE: Final = 4096
_log = logging.getLogger(__name__)


class Keeper:
    """The keeping side. The process has entered a user namespace before it had threads."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._networks: dict[str, int] = {}
        self._user_namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Keeper networks={len(self._networks)}>"

    def listen(self, path: Path) -> None:
        """Answer on a socket that only this user reaches."""
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(1024)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        for descriptor in (*self._networks.values(), self._user_namespace):
            os.close(descriptor)
        self._networks.clear()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            asking, _ = self._listener.accept()
        except OSError as error:
            _log.debug("nobody is there any more: %s", error)
            return
        task = asyncio.create_task(self._answer(asking), name="keeper")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asking: socket.socket) -> None:
        with asking:
            asking.setblocking(False)
            message = await asyncio.get_running_loop().sock_recv(asking, _LONGEST_MESSAGE)
            descriptors: list[int] = []
            made: socket.socket | None = None
            try:
                match message.decode().split():
                    case ["new", key, *linked]:
                        descriptors = [self._user_namespace, await self._new(key, linked=bool(linked))]
                    case ["socket", key, family]:
                        made = await self._links.socket_in(self._network(key), int(family))
                        descriptors = [made.fileno()]
                    case ["forget", key]:
                        self._forget(key)
                    case ["hold"]:
                        pass  # answered as soon as there is a keeper
                    case _:
                        raise OSError(errno.EINVAL, "there is no such request")
                reply = b"ok"
            except OSError as error:
                reply = (error.strerror or str(error)).encode()
            try:
                socket.send_fds(asking, [reply], descriptors)
                if message == b"hold":
                    await asyncio.get_running_loop().sock_recv(asking, 1)
            except OSError as error:
                _log.debug("who asked for a network is gone: %s", error)
            finally:
                if made is not None:
                    made.close()

    async def _new(self, key: str, *, linked: bool) -> int:
        descriptor = await self._links.new_network()
        self._networks[key] = descriptor
        if linked:
            try:
                await self._links.attach(key, descriptor)
            except OSError:
                self._forget(key)  # nobody else will: whoever asked has no network
                raise
        return descriptor

    def _network(self, key: str) -> int:
        try:
            return self._networks[key]
        except KeyError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the instance's network is gone") from None

    def _forget(self, key: str) -> None:
        descriptor = self._networks.pop(key, None)
        if descriptor is not None:
            self._links.detach(key)
            os.close(descriptor)
