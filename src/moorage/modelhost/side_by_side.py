"""Invocations that run side by side in one worker: functions that are async, or threads.

An asyncio loop makes the rounds of the worker. What the server's epoll has to tell is one reader of it, and each
invocation is a task, which the loop runs while others wait. Functions that are not async run in threads, if there are
to be several.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

from moorage.modelhost.cancellation import Cancellation
from moorage.modelhost.connection import Connection, Request
from moorage.modelhost.context import Context
from moorage.modelhost.handlers import Handler
from moorage.modelhost.reply import Reply
from moorage.modelhost.serving import Server
from moorage.modelhost.settings import Settings
from moorage.modelhost.shared import Shared
from moorage.modelhost.streams import RUNNING, Running, attached

Failed = Callable[[BaseException, Reply, bool], None]
"""Told what an invocation raised, and whether it was told to stop."""

_HEARTBEATS_IN_A_LIMIT = 8
_END = object()


class TookTooLong(Exception):
    """User code ran for longer than it may."""


class SideBySide:
    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        shared: Shared,
        *,
        context: Callable[[Request], Context | None],
        failed: Failed,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._shared = shared
        self._context = context
        self._failed = failed
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._lost_threads = 0
        self._threads = None if handler.is_async else ThreadPoolExecutor(settings.threads, "invocation")
        self._server: Server
        """Whose rounds `run` makes; nothing is started before."""
        self._ended: asyncio.Future[None] = loop.create_future()

    def run(self, server: Server) -> None:
        """Returns when the front has said SHUTDOWN, and all that was there is served."""
        self._server = server
        self._loop.add_reader(server.fileno(), self._step)
        self._step_soon()
        self._loop.run_until_complete(self._ended)
        self._loop.remove_reader(server.fileno())
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _step(self) -> None:
        self._is_due = False
        if self._ended.done():
            return
        if not self._server.step(0):
            self._ended.set_result(None)
        elif self._server.patience() == 0:
            self._step_soon()

    def _step_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._step)

    def start(self, connection: Connection, request: Request, reply: Reply) -> Running:
        cancellation = connection.running = Cancellation()
        task = self._loop.create_task(self._invoke(connection, request, reply, cancellation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._heartbeat is None:
            self._beat()
        return RUNNING

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """In a thread: what a function that is not async has returned to be awaited."""

        async def awaited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()

    async def _invoke(
        self, connection: Connection, request: Request, reply: Reply, cancellation: Cancellation
    ) -> None:
        limit = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(limit) as deadline:
                await attached(self._answer(connection, request, reply, deadline), cancellation)
        except BaseException as error:
            trouble: BaseException = error
            if isinstance(error, TimeoutError) and deadline.expired():
                trouble = TookTooLong(
                    f"it took longer than {limit:g} s (SAGEMAKER_MODEL_SERVER_TIMEOUT sets the limit)"
                )
            self._failed(trouble, reply, cancellation.requested)
        connection.running = None
        self._shared.served[0] += 1
        self._server.ended(connection, closes=reply.closes)
        self._step_soon()

    async def _answer(
        self, connection: Connection, request: Request, reply: Reply, deadline: asyncio.Timeout
    ) -> None:
        context = self._context(request)
        if self._threads is None:
            answer = await self._handler.transform_async(request.body, request.headers, context)
        else:
            answer = await self._result(
                self._submit(self._threads, self._handler.transform, request.body, request.headers, context)
            )
        body, content_type, context = answer
        reply.begin(content_type, context)
        if isinstance(body, bytes):
            reply.whole(body)
            return
        async with contextlib.aclosing(self._parts(body)) as parts:
            async for part in parts:
                if reply.part(part):
                    await self._until_sent(connection)
                if self._settings.timeout_seconds is not None:
                    deadline.reschedule(self._loop.time() + self._settings.timeout_seconds)
        reply.end()

    def _parts(self, body: Iterator[Any] | AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """The parts of a stream, between which others run."""
        if isinstance(body, AsyncIterator):
            return self._of_async(body)
        return self._of_sync(body) if self._threads is None else self._in_threads(body, self._threads)

    async def _of_async(self, body: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        try:
            async for part in body:
                yield part
                await asyncio.sleep(0)
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _of_sync(self, body: Iterator[Any]) -> AsyncGenerator[Any, None]:
        try:
            for part in body:
                yield part
                await asyncio.sleep(0)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    async def _in_threads(
        self, body: Iterator[Any], threads: ThreadPoolExecutor
    ) -> AsyncGenerator[Any, None]:
        advancing: Future[Any] | None = None
        try:
            while True:
                advancing = self._submit(threads, next, body, _END)
                part = await self._result(advancing)
                if part is _END:
                    break
                yield part
        finally:
            close = getattr(body, "close", None)
            if close is not None and advancing is not None and not advancing.done():
                advancing.add_done_callback(lambda _: close())  # a generator that runs cannot be closed
            elif close is not None:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    await self._result(self._submit(threads, close))

    def _submit(
        self, threads: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any
    ) -> Future[Any]:
        return threads.submit(contextvars.copy_context().run, function, *arguments)

    async def _result(self, running: Future[Any]) -> Any:
        """Of what runs in a thread. When it is cancelled it goes on, and holds the thread until then."""
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if running.running():
                self._lost_threads += 1
                running.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._found_thread))
            raise

    def _found_thread(self) -> None:
        self._lost_threads -= 1

    async def _until_sent(self, connection: Connection) -> None:
        sent = self._loop.create_future()
        self._server.when_sent(connection, lambda: None if sent.done() else sent.set_result(None))
        await sent

    def _beat(self) -> None:
        """Tells the front that the loop is not held up, and that there are threads: else the worker is replaced."""
        limit = self._settings.timeout_seconds
        if not self._tasks and not self._lost_threads:
            self._heartbeat = None
            self._shared.busy_since[0] = 0.0
            return
        if self._lost_threads < self._settings.threads or not self._shared.busy_since[0]:
            self._shared.busy_since[0] = monotonic()
        self._heartbeat = self._loop.call_later((limit or 60.0) / _HEARTBEATS_IN_A_LIMIT, self._beat)
