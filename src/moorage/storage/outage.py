"""Whether the database answers: found out by one, told once, and spared everyone else the wait."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from moorage.storage.failures import DatabaseUnavailable, Trouble

_PROBE_EVERY_SECONDS = 0.5
_VERDICT_SECONDS = 1.5
logger = logging.getLogger(__name__)


class Outage:
    """The time for which a database does not answer. `probe` does something small with it, and raises
    `DatabaseUnavailable` if that fails; it must end within about a second."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.since: datetime | None = None
        self._name = name
        self._probe = probe
        self._text = ""
        self._began = 0.0
        self._verdict: asyncio.Future[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Outage since={self.since}>"

    async def settled(self) -> None:
        """Return when nobody is finding out whether the database answers."""
        if self._verdict is not None:
            await asyncio.wait({self._verdict}, timeout=_VERDICT_SECONDS)

    def check(self) -> None:
        """Return if the database answers, as far as is known.

        Raises:
            DatabaseUnavailable: it does not.
        """
        if self.since is not None:
            raise DatabaseUnavailable(self._text)

    def suspect(self, trouble: Trouble) -> None:
        """Somebody was not answered: find out whether anybody is."""
        if self._probing is None:
            self._verdict = asyncio.get_running_loop().create_future()
            self._probing = asyncio.create_task(self._find_out(trouble), name="probe the database")

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})

    async def _find_out(self, trouble: Trouble) -> None:
        began = time.monotonic()
        try:
            while True:
                try:
                    await self._probe()
                except DatabaseUnavailable:
                    if self.since is None:
                        self._begin(trouble)
                    await asyncio.sleep(_PROBE_EVERY_SECONDS)
                else:
                    break
            if self.since is not None:
                self.since = None
                logger.warning("%s answers again after %.1f s", self._name, time.monotonic() - began)
                self.on_change()
        finally:
            self._probing = None
            self._decide()

    def _begin(self, trouble: Trouble) -> None:
        self.since = datetime.now(UTC)
        self._text = f"{self._name} {trouble.text}"
        logger.error(
            "%s: the control plane is unavailable until it is back; endpoints in service keep answering",
            self._text,
        )
        self._decide()
        self.on_change()

    def _decide(self) -> None:
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(None)
        self._verdict = None
