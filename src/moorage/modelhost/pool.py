"""The worker processes: handed out one invocation at a time, in order of arrival, replaced when they die."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Iterable
from pathlib import Path

from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.settings import Settings
from moorage.modelhost.worker_process import WorkerLost, WorkerProcess

logger = logging.getLogger("modelhost")

_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 30.0


class WorkerPool:
    """`acquire` and `release` decide at once; a waiting `acquire` is served first come, first served."""

    def __init__(self, settings: Settings, python: Path) -> None:
        self._settings = settings
        self._python = python
        self._loading: list[WorkerProcess] = []
        self._alive: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._keepers: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        # What has gone wrong last; matters only while no worker is alive.
        self._trouble = "the model is being loaded"
        self._replacement_failed = False

    def __repr__(self) -> str:
        return f"<WorkerPool alive={len(self._alive)} idle={len(self._idle)} waiting={len(self._waiting)}>"

    @property
    def trouble(self) -> str | None:
        """Why nothing can be served, or None when a worker is alive, idle or busy."""
        return None if self._alive else self._trouble

    async def launch(self) -> None:
        """Starts the processes, and does not wait for what they load. `stop` ends them in any case."""
        for number in range(1, self._settings.workers + 1):
            self._loading.append(await WorkerProcess.launch(f"worker {number}", self._python, self._settings))

    async def load(self) -> None:
        """Returns once every worker has loaded the model. StartupError as soon as one cannot."""
        await _all(worker.loaded() for worker in self._loading)
        for worker in self._loading:
            self._join(worker)
            self._keepers.add(asyncio.create_task(self._keep(worker), name=f"keep {worker.name}"))
        self._loading.clear()

    async def acquire(self) -> WorkerProcess:
        """A worker of one's own. Give it back with `release`, or with `abandon` before its reply has ended."""
        if self._idle:
            return self._idle.pop()
        if self._replacement_failed and not self._alive:
            raise InvocationError(503, self._unavailable())
        turn: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise

    def release(self, worker: WorkerProcess) -> None:
        if not worker.alive:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def abandon(self, worker: WorkerProcess) -> None:
        """The client has gone: the worker is told, and comes back when it has let go of the invocation."""
        task = asyncio.create_task(self._settle(worker), name=f"settle {worker.name}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def stop(self) -> None:
        for task in (*self._keepers, *self._settling):
            task.cancel()
        await asyncio.gather(*self._keepers, *self._settling, return_exceptions=True)
        await asyncio.gather(*(worker.kill("the host stops") for worker in self._loading))
        await asyncio.gather(*(worker.stop() for worker in self._alive))

    def _join(self, worker: WorkerProcess) -> None:
        self._alive.add(worker)
        self._replacement_failed = False
        self.release(worker)

    async def _settle(self, worker: WorkerProcess) -> None:
        with contextlib.suppress(WorkerLost):  # its keeper reports and replaces it
            await worker.settle()
            self.release(worker)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Owns one place in the pool for ever, whoever fills it."""
        failures = 0
        while True:
            how = await worker.exited()
            self._alive.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            self._trouble = f"{worker.name} {how} and is being replaced"
            logger.error("%s", self._trouble)
            # Only a worker that never finished an invocation is a sign that the next will not either.
            failures = 0 if worker.served else failures + 1
            worker, failures = await self._replace(worker.name, failures)
            self._join(worker)
            logger.info("%s replaced", worker.name)

    async def _replace(self, name: str, failures: int) -> tuple[WorkerProcess, int]:
        while True:
            delay = min(_FIRST_BACKOFF_SECONDS * 2**failures, _LONGEST_BACKOFF_SECONDS)
            await asyncio.sleep(delay)
            worker = await WorkerProcess.launch(name, self._python, self._settings)
            try:
                await worker.loaded()
            except StartupError as error:
                await worker.kill("it could not load the model")
                failures += 1
                self._report_failed_replacement(name, error)
            except BaseException:
                await worker.kill("the host stops")
                raise
            else:
                return worker, failures

    def _report_failed_replacement(self, name: str, error: StartupError) -> None:
        logger.error("%s could not be replaced\n%s%s", name, error.detail, error.sentence)
        if self._alive:
            return
        # Nobody can tell whether a worker will ever come: better an answer than a queue.
        self._replacement_failed = True
        self._trouble = f"{name} could not be replaced: {error.sentence}"
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(InvocationError(503, self._unavailable()))
        self._waiting.clear()

    def _unavailable(self) -> str:
        return f"No worker can take this invocation: {self._trouble}\n"


async def _all(coroutines: Iterable[Awaitable[None]]) -> None:
    """Ends with the first failure, as itself and not in a group."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
