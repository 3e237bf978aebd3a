"""Runs what is queued: claims invocations for the instances that have room, and sees each to its end.

One worker per endpoint with a backlog, woken by what is accepted, by routes that change and by places that become
free. It claims as many as there are places, reserves an instance for each in the same step, and hands it to a task
(`moorage.async_inference.attempt`). A task that ends without an end of its invocation leaves it to `_recover`, which
also gives back what an earlier process had claimed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from moorage.async_inference.attempt import Attempts
from moorage.async_inference.base import Claim, EndpointKey, Queue
from moorage.async_inference.purge import purge
from moorage.routing import selection
from moorage.routing.table import RoutingTable
from moorage.storage.failures import DatabaseUnavailable

_CLAIM_AT_MOST = 64
_EXPIRE_AT_ONCE = 64
_LOOK_FOR_EXPIRED_SECONDS = 30.0
_PURGE_EVERY_SECONDS = 600.0
_RECOVER_EVERY_SECONDS = 15.0
_LOOK_AT_HELD_SECONDS = 0.5
_AFTER_FAULT_SECONDS = 10.0
_AFTER_ERROR_SECONDS = 1.0
_MOST_FAULTS = 5
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    """One endpoint's."""

    awake: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """By invocation id."""
    held_back: bool = False
    """The endpoint is being deleted: nothing new is begun."""


class Dispatcher:
    """Drains the queue of every endpoint that the table has a route to."""

    def __init__(
        self,
        *,
        queue: Queue,
        attempts: Attempts,
        table: RoutingTable,
        keep_seconds: float,
    ) -> None:
        self._queue = queue
        self._attempts = attempts
        self._table = table
        self._keep_seconds = keep_seconds
        self._workers: dict[EndpointKey, _Worker] = {}
        self._claims: dict[str, Claim] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._workers)} endpoints, {len(self._claims)} invocations>"

    async def run(self) -> None:
        """Until cancelled. What is running then goes back into the queue."""
        left: list[Claim] = []
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for work in (self._recover, self._expire, self._purge, self._wake_all):
                    self._tasks.create_task(self._until_done(work), name=work.__name__)
                for key in list(self._workers):
                    self._start(key)
                try:
                    await asyncio.Event().wait()
                finally:
                    left = list(self._claims.values())
        finally:
            self._tasks = None
            for claim in left:
                await self._queue.release(claim)

    def wake(self, account_id: str, endpoint_name: str) -> None:
        """Something may have changed for this endpoint: an invocation was accepted, or its route changed."""
        key = (account_id, endpoint_name)
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker()
            self._start(key)
        worker.awake.set()

    def route_changed(self, account_id: str, endpoint_name: str) -> None:
        """For the routing table to call."""
        route = self._table.find(account_id, endpoint_name)
        if (account_id, endpoint_name) in self._workers or (route is not None and route.asynchronous):
            self.wake(account_id, endpoint_name)

    async def fail(self, claim: Claim, reason: str) -> bool:
        """End a claimed invocation as failed, with its failure object."""
        return await self._attempts.fail(claim, reason)

    async def fail_all(self, account_id: str, endpoint_name: str, reason: str) -> None:
        """End all that an endpoint still has, as failed. Its route is gone and its instances have stopped, so what
        was running there is on its way back into the queue."""
        self.wake(account_id, endpoint_name)
        worker = self._workers[account_id, endpoint_name]
        worker.held_back = True
        try:
            await self._queue.settled()
            while True:
                if worker.running:
                    await asyncio.wait(list(worker.running.values()))
                claims = await self._queue.claim(account_id, endpoint_name, most=_CLAIM_AT_MOST)
                if claims:
                    await self._end_all(claims, lambda claim: self._attempts.fail(claim, reason))
                    continue
                pause = await self._queue.seconds_to_claimable(account_id, endpoint_name)
                if pause is None and not await self._queue.has_unfinished(account_id, endpoint_name):
                    return
                # What is held then is being cancelled, or was abandoned a moment ago.
                await asyncio.sleep(_LOOK_AT_HELD_SECONDS if pause is None else pause)
        finally:
            worker.held_back = False
            worker.awake.set()

    # --- one endpoint ---------------------------------------------------------------------------------

    def _start(self, key: EndpointKey) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._until_done(lambda: self._work(key)), name=f"dispatch for {key[1]}")

    async def _work(self, key: EndpointKey) -> None:
        """Until the endpoint is gone and has left nothing."""
        worker = self._workers[key]
        while True:
            if self._table.find(*key) is None and not worker.running and not worker.held_back:
                del self._workers[key]
                return
            worker.awake.clear()
            if await self._begin_some(key, worker):
                continue
            pause = None
            if self._room(key, worker):
                pause = await self._queue.seconds_to_claimable(*key)
            await _wait(worker.awake, pause)

    def _room(self, key: EndpointKey, worker: _Worker) -> int:
        route = self._table.find(*key)
        if route is None or worker.held_back:
            return 0
        return selection.room(route, route.max_concurrency)

    async def _begin_some(self, key: EndpointKey, worker: _Worker) -> bool:
        """Claim as many as there is room for; False if there is no room or nothing to claim."""
        room = min(self._room(key, worker), _CLAIM_AT_MOST)
        if not room:
            return False
        claims = await self._queue.claim(*key, most=room)
        for claim in claims:
            self._begin(key, worker, claim)
        return bool(claims)

    def _begin(self, key: EndpointKey, worker: _Worker, claim: Claim) -> None:
        """Reserve an instance now, before anything else is decided, and run the invocation there."""
        assert self._tasks is not None
        route = self._table.find(*key)
        reserved = selection.reserve_within(route, route.max_concurrency) if route is not None else None
        id = claim.invocation.invocation_id
        self._claims[id] = claim

        async def run() -> None:
            if route is None or reserved is None:  # the instances went while the claim was being made
                await self._queue.release(claim, unattempted=True)
                return
            await self._attempts.run(claim, route, *reserved)

        task = self._tasks.create_task(self._guarded(claim, run), name=f"invocation {id}")
        worker.running[id] = task

        def done(_: object) -> None:  # is called for a task that was cancelled before it began, too
            if reserved is not None:
                self._table.release(reserved[1])
            del worker.running[id], self._claims[id]
            self._queue.abandon(claim)
            worker.awake.set()

        task.add_done_callback(done)

    async def _guarded(self, claim: Claim, run: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours ends one attempt, and the invocation comes back after a pause; not for ever."""
        try:
            await run()
        except DatabaseUnavailable:
            return  # the log has been told, and `_recover` gives the invocation back
        except Exception as error:
            id = claim.invocation.invocation_id
            logger.exception("async invocation %s: attempt %d failed by a fault of ours", id, claim.attempt)
            if claim.attempt >= _MOST_FAULTS:
                reason = (
                    f"The server met an error of its own ({type(error).__name__}). Its log tells more about "
                    f"invocation {id}; `moorage async retry {id}` runs it again."
                )
                with suppress(Exception):  # it has been logged, and the invocation comes back as before
                    await self._attempts.fail(claim, reason)
                    return
            with suppress(Exception):  # as when the database is away: `_recover` gives it back
                await self._queue.release(claim, delay_seconds=_AFTER_FAULT_SECONDS)

    # --- for all of them ------------------------------------------------------------------------------

    async def _recover(self) -> None:
        while True:
            for key in await self._queue.recover():
                self.wake(*key)
            await asyncio.sleep(_RECOVER_EVERY_SECONDS)

    async def _expire(self) -> None:
        while True:
            claims = await self._queue.claim_expired(most=_EXPIRE_AT_ONCE)
            await self._end_all(claims, self._attempts.expire)
            if not claims:
                pause = await self._queue.seconds_to_expiry()
                if pause is None or pause > _LOOK_FOR_EXPIRED_SECONDS:  # the time of day may be set meanwhile
                    pause = _LOOK_FOR_EXPIRED_SECONDS
                await asyncio.sleep(pause)

    async def _end_all(self, claims: Sequence[Claim], end: Callable[[Claim], Awaitable[object]]) -> None:
        async def end_one(claim: Claim) -> None:
            try:
                await end(claim)
            finally:
                self._queue.abandon(claim)

        await asyncio.gather(*map(end_one, claims))

    async def _wake_all(self) -> None:
        """What an earlier run left in the queue."""
        for key in await self._queue.backlogged():
            self.wake(*key)

    async def _purge(self) -> None:
        while True:
            before = datetime.now(UTC) - timedelta(seconds=self._keep_seconds)
            await purge(self._queue, finished_before=before)
            await asyncio.sleep(_PURGE_EVERY_SECONDS)

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """The database may be away for a while: that must not end the dispatcher."""
        while True:
            try:
                return await work()
            except DatabaseUnavailable:
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
            except Exception:
                logger.exception("asynchronous inference met an error and goes on")
                await asyncio.sleep(_AFTER_ERROR_SECONDS)


async def _wait(event: asyncio.Event, timeout_seconds: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return
