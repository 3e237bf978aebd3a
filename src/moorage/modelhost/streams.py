"""A reply in parts, under way: advanced while its client reads, and left alone while it does not.

A part is asked for only when the client has taken those before. Until then the generator stands still at its yield,
which costs nothing, and the worker runs what others ask for.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from moorage.modelhost.cancellation import Cancellation

if TYPE_CHECKING:
    import asyncio

    from moorage.modelhost.reply import Reply


class Stream(Protocol):
    reply: "Reply"
    cancellation: Cancellation

    def advance(self) -> bool:
        """Whether it has ended, with its last part sent; else its client has to read before it is advanced again.
        Raises what user code raises, or ClientGone."""

    def close(self) -> None:
        """Ends it, while it waits for its client. Raises what user code raises."""


class Running:
    """In the place of a stream: an invocation that goes on beside others, and tells the server when it has ended."""


RUNNING = Running()


class SyncStream:
    def __init__(self, parts: Iterator[Any], reply: "Reply", cancellation: Cancellation) -> None:
        self.reply = reply
        self.cancellation = cancellation
        self._parts = parts

    def advance(self) -> bool:
        parts, send, next_part = self._parts, self.reply.part, self.cancellation.next_part
        ended = True
        try:
            while True:
                try:
                    part = next_part(parts)
                except StopIteration:
                    return True
                if send(part):
                    ended = False
                    return False
        finally:
            if ended:
                self.close()

    def close(self) -> None:
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()


class AsyncStream:
    """Runs in one task from its beginning to its end, since what user code holds over a yield may belong to a task
    (`asyncio.timeout`, cancel scopes). The task waits for the client where no user code runs, and the loop stops."""

    def __init__(
        self,
        parts: AsyncIterator[Any],
        reply: "Reply",
        cancellation: Cancellation,
        loop: "asyncio.AbstractEventLoop",
    ) -> None:
        self.reply = reply
        self.cancellation = cancellation
        self._parts = parts
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._stopped: asyncio.Future[None] = loop.create_future()  # when the task waits, or has ended
        self._may_go_on: asyncio.Future[None] | None = None

    def advance(self) -> bool:
        if self._task is None:
            self._task = self._loop.create_task(attached(self._pump(), self.cancellation))
            self._task.add_done_callback(lambda task: self._stop())
        elif self._may_go_on is not None:
            self._may_go_on.set_result(None)
        self._run()
        if self._task.done():
            self._task.result()
            return True
        return False

    def close(self) -> None:
        assert self._task is not None
        self.cancellation.cancel(self._task)
        while not self._task.done():
            self._run()
        self._task.result()

    def _run(self) -> None:
        """Until the task waits for the client, or has ended."""
        try:
            self._loop.run_until_complete(self._stopped)
        except BaseException:
            if self._task is not None and self._task.done():
                self._task.exception()  # it is the one that is raised here, as SystemExit is: nothing to complain of
            raise
        finally:
            self._stopped = self._loop.create_future()

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def _pump(self) -> None:
        import asyncio  # here, because most models need none of it and it is slow to import

        parts, send = self._parts, self.reply.part
        try:
            async for part in parts:
                if send(part):
                    self._may_go_on = self._loop.create_future()
                    self._stop()
                    await self._may_go_on
                    self._may_go_on = None
                else:
                    # A generator that never waits would otherwise never hear that it is cancelled.
                    await asyncio.sleep(0)
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()


async def attached(awaitable: Awaitable[Any], cancellation: Cancellation) -> Any:
    """In a task that ends when the client has gone."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    cancellation.attach(task)
    try:
        return await awaitable
    finally:
        cancellation.detach()
