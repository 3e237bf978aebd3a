"""The worker processes: who serves which connection, in order of arrival; replaced when they die.

One worker keeps the connections it is given. Several take turns: a connection on which an invocation waits goes to
a worker that is free, and comes back with the reply, so that no client waits for one worker while another is idle.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from moorage.modelhost import http
from moorage.modelhost.errors import StartupError
from moorage.modelhost.forked import Forked
from moorage.modelhost.messages import Kind, Message
from moorage.modelhost.settings import Settings
from moorage.modelhost.shared import State
from moorage.modelhost.visitors import Visitor
from moorage.modelhost.worker_process import WorkerProcess

logger = logging.getLogger("modelhost")

_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 30.0

_STOPPED = "The container was stopped before this invocation had ended.\n"


class WorkerPool:
    """All decisions are made at once, where something happens; what awaits is starting, replacing and ending."""

    def __init__(self, settings: Settings, python: Path) -> None:
        self._settings = settings
        self._python = python
        self._loading: list[WorkerProcess] = []
        self._alive: list[WorkerProcess] = []
        self._waiting: deque[Visitor] = deque()
        self._keepers: set[asyncio.Task[None]] = set()
        self._returned: Callable[[Visitor], None] = Visitor.see_off
        self._settled = asyncio.Event()
        # What has gone wrong last; matters only while no worker is alive.
        self._trouble = "the model is being loaded"
        self._replacement_failed = False

    def __repr__(self) -> str:
        return f"<WorkerPool alive={self._alive} waiting={len(self._waiting)}>"

    @property
    def trouble(self) -> str | None:
        """Why nothing can be served, or None when a worker is alive, idle or busy."""
        return None if self._alive else self._trouble

    def on_returned(self, returned: Callable[[Visitor], None]) -> None:
        """Who gets a connection that no worker has any more, to wait for its next request."""
        self._returned = returned

    async def launch(self, forked: Sequence[Forked] = ()) -> None:
        """Starts the processes, but for those that are there, and does not wait for what they load. `stop` ends them
        in any case."""
        for number, each in enumerate(forked):
            self._loading.append(WorkerProcess.adopt(number, each, self._settings))
        for number in range(len(forked), self._settings.workers):
            self._loading.append(await WorkerProcess.launch(number, self._python, self._settings))

    async def load(self) -> None:
        """Returns once every worker has loaded the model. StartupError as soon as one cannot."""
        await _all(worker.loaded() for worker in self._loading)
        for worker in self._loading:
            self._join(worker)
            self._keepers.add(asyncio.create_task(self._keep(worker), name=f"keep {worker.name}"))
        self._loading.clear()

    def take(self, visitor: Visitor) -> None:
        """An invocation waits on this connection."""
        if self._replacement_failed and not self._alive:
            visitor.see_off(self._unavailable())
            return
        self._waiting.append(visitor)
        self._give_turns()

    def tidy(self) -> None:
        for worker in self._alive:
            worker.tell(Kind.TIDY)

    async def drain(self, others_gone: Callable[[], Awaitable[None]]) -> None:
        """Serves what is there, and lets the workers leave. `others_gone` returns when no connection is watched."""
        while True:
            await others_gone()
            await self._has_settled()
            leaving = list(self._alive)
            await asyncio.gather(*(worker.drain() for worker in leaving))
            # One that died of it has left connections behind, which its replacement is to serve.
            if all(worker.drained for worker in leaving):
                return

    async def stop(self) -> None:
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.kill("the host stops") for worker in self._loading))
        await asyncio.gather(*(self._end(worker) for worker in self._alive))
        for visitor in self._waiting:
            visitor.see_off(http.text(503, _STOPPED, close=True, headers=http.NOT_STARTED))

    async def _end(self, worker: WorkerProcess) -> None:
        if worker.drained:
            await worker.stop()
            return
        await worker.kill("the host stops")
        for slot, visitor in worker.visitors.items():
            state = worker.state(slot)
            if state is State.UNTOUCHED and visitor.peek(1) is None:
                visitor.see_off()
            else:
                _tell_of_loss(visitor, state, http.text(503, _STOPPED, close=True, headers=http.INTERRUPTED))

    # Turns.

    def _give_turns(self) -> None:
        for worker in self._alive:
            if worker.holder is None and worker.ready:
                worker.holder = worker.ready.popleft()
                worker.tell(Kind.GO, worker.holder)
        while self._waiting and (free := self._free()) is not None:
            slot = free.hand_over(self._waiting.popleft())
            if not free.keeps:
                free.holder = slot
        if not self._waiting and all(worker.holder is None for worker in self._alive):
            self._settled.set()
        else:
            self._settled.clear()

    def _free(self) -> WorkerProcess | None:
        """Whoever has the fewest connections whose bodies are on the way, for they come back to it; of those, who was
        free last, for what it works with is still warm."""
        free = (each for each in reversed(self._alive) if each.holder is None and not each.leaving)
        return min(free, key=lambda worker: len(worker.visitors), default=None)

    def _hear(self, worker: WorkerProcess, message: Message) -> None:
        slot = message.slot
        match message.kind:
            case Kind.READY:
                worker.ready.append(slot)
            case Kind.RETURNED:
                self._returned(worker.take_back(slot))
            case Kind.CLOSED:
                worker.take_back(slot).see_off()
                with contextlib.suppress(ValueError):
                    worker.ready.remove(slot)
        if message.kind is not Kind.READY and worker.holder == slot:
            worker.holder = None
            self._alive.remove(worker)
            self._alive.append(worker)
        self._give_turns()

    async def _has_settled(self) -> None:
        """Returns when no connection waits for a worker, and none has a turn."""
        self._give_turns()
        await self._settled.wait()

    # The places of the pool, and who fills them.

    def _join(self, worker: WorkerProcess) -> None:
        self._alive.append(worker)
        self._replacement_failed = False
        worker.on_message = lambda message: self._hear(worker, message)
        self._give_turns()

    async def _keep(self, worker: WorkerProcess) -> None:
        """Owns one place in the pool for ever, whoever fills it."""
        failures = 0
        while True:
            watching = asyncio.create_task(worker.kill_when_stuck(), name=f"watch {worker.name}")
            try:
                how = await worker.exited()
            finally:
                watching.cancel()
            if worker.drained:
                return
            self._bury(worker, how)
            # Only a worker that never finished an invocation is a sign that the next will not either.
            failures = 0 if worker.served else failures + 1
            worker, failures = await self._replace(worker.number, failures)
            self._join(worker)
            logger.info("%s replaced", worker.name)

    def _bury(self, worker: WorkerProcess, how: str) -> None:
        self._alive.remove(worker)
        self._trouble = f"{worker.name} {how} and is being replaced"
        logger.error("%s", self._trouble)
        apology = f"The worker that ran this invocation {how}. It is being replaced.\n"
        # One that was killed for taking too long would take too long again: that answer is final.
        headers = "" if worker.exceeded_its_time else http.INTERRUPTED
        for slot, visitor in worker.visitors.items():
            state = worker.state(slot)
            if state is State.UNTOUCHED:
                self._returned(visitor)
            else:
                _tell_of_loss(visitor, state, http.text(500, apology, close=True, headers=headers))
        self._give_turns()

    async def _replace(self, number: int, failures: int) -> tuple[WorkerProcess, int]:
        while True:
            delay = min(_FIRST_BACKOFF_SECONDS * 2 ** min(failures, 10), _LONGEST_BACKOFF_SECONDS)
            await asyncio.sleep(delay)
            try:
                return await self._loaded(number), failures
            except StartupError as error:
                failures += 1
                self._report_failed_replacement(f"worker {number + 1}", error)

    async def _loaded(self, number: int) -> WorkerProcess:
        """A worker with the model. StartupError when there can be none now."""
        worker = await WorkerProcess.launch(number, self._python, self._settings)
        try:
            await worker.loaded()
        except BaseException:  # it could not load the model, or the host stops
            await worker.kill("it is not to serve")
            raise
        return worker

    def _report_failed_replacement(self, name: str, error: StartupError) -> None:
        logger.error("%s could not be replaced\n%s%s", name, error.detail, error.sentence)
        if self._alive:
            return
        # Nobody can tell whether a worker will ever come: better an answer than a queue.
        self._replacement_failed = True
        self._trouble = f"{name} could not be replaced: {error.sentence}"
        while self._waiting:
            self._waiting.popleft().see_off(self._unavailable())
        self._give_turns()

    def _unavailable(self) -> bytes:
        sentence = f"No worker can take this invocation: {self._trouble}\n"
        return http.text(503, sentence, close=True, headers=http.NOT_STARTED)


def _tell_of_loss(visitor: Visitor, state: State, reply: bytes) -> None:
    """The worker that had this connection has ended."""
    match state:
        case State.REPLYING:
            visitor.break_off()
        case State.REPLYING_UNTIL_CLOSE:
            visitor.reset()
        case _:
            visitor.see_off(reply)


async def _all(coroutines: Iterable[Awaitable[None]]) -> None:
    """Ends with the first failure, as itself and not in a group."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
