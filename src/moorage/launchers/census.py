"""Looks at processes of the machine, in threads."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from moorage.launchers import procfs

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(look: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """In a thread, since there may be many processes; without one when the machine is out of processes, which is when
    those of an instance have to be found and ended."""
    try:
        return await asyncio.to_thread(look, *args, **kwargs)
    except RuntimeError:
        return look(*args, **kwargs)


class Census:
    """Those who ask while a look is under way share the next one."""

    def __init__(self) -> None:
        self._running: asyncio.Task[list[procfs.Process]] | None = None
        self._waiting: asyncio.Task[list[procfs.Process]] | None = None

    async def take(self) -> list[procfs.Process]:
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._look(self._running), name="census")
        return await asyncio.shield(self._waiting)

    async def _look(self, before: "asyncio.Task[list[procfs.Process]] | None") -> list[procfs.Process]:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._waiting = self._waiting, None
        return await in_thread(procfs.processes)
