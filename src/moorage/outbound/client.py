"""The launcher's side of the outbound process."""

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 5.0


class OutboundClient:
    """Keeps the networks that were given to `attach` linked, also when the process behind `path` is started anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted: dict[str, asyncio.Future[str]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<OutboundClient {self._path} networks={len(self._wanted)}>"

    async def attach(self, network: str) -> str:
        """Let an instance call out; returns its address. Waits some seconds for a process that is just starting.

        Raises:
            OSError: it cannot, the text says why. It is tried again when the process is started anew.
        """
        answered = self._wanted.get(network)
        if answered is None:
            answered = self._wanted[network] = asyncio.get_running_loop().create_future()
            self._ask(network)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name="outbound client")
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asyncio.shield(answered)
        except TimeoutError:
            raise OSError("the process that carries its calls does not answer") from None

    def detach(self, network: str) -> None:
        answered = self._wanted.pop(network, None)
        if answered is not None:
            answered.cancel()
            self._send({"detach": network})

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for answered in self._wanted.values():
            answered.cancel()

    async def _keep_connected(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                for network in self._wanted:
                    self._ask(network)
                while line := await reader.readline():
                    self._take(json.loads(line))
            except ConnectionError as error:
                _log.debug("the outbound process went away: %s", error)
            finally:
                self._writer.close()
                self._writer = None

    def _ask(self, network: str) -> None:
        self._send({"attach": network})

    def _send(self, message: dict[str, str]) -> None:
        if self._writer is not None:
            with suppress(ConnectionError):
                self._writer.write(json.dumps(message).encode() + b"\n")

    def _take(self, reply: dict[str, str]) -> None:
        answered = self._wanted.get(reply["network"])
        if answered is None or answered.done():
            if "error" in reply:
                _log.warning("an instance cannot call out: %s", reply["error"])
        elif "error" in reply:
            answered.set_exception(OSError(reply["error"]))
            answered.exception()  # whoever asked may have given up waiting
        else:
            answered.set_result(reply["address"])
