"""Looks at all processes of the machine, in a thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from moorage.launchers import procfs


class Census:
    """Those who ask while a look is under way share the next one."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="census")
        self._running: asyncio.Task[list[procfs.Process]] | None = None
        self._waiting: asyncio.Task[list[procfs.Process]] | None = None

    async def take(self) -> list[procfs.Process]:
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._look(self._running), name="census")
        return await asyncio.shield(self._waiting)

    def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def _look(self, before: "asyncio.Task[list[procfs.Process]] | None") -> list[procfs.Process]:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._waiting = self._waiting, None
        return await asyncio.get_running_loop().run_in_executor(self._executor, procfs.processes)
