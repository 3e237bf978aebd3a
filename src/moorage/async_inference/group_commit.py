"""One transaction for what many want written at the same moment: each waits for one commit, and all for few."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """`commit` writes a batch of up to `most` items in one transaction, and gives one result for each.

    While one batch is being written the next one gathers. What `commit` raises, every caller of that batch gets.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int = 256) -> None:
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._being_written: set[asyncio.Future[R]] = set()
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Return once the item is committed. Cancelling the caller does not take the item back."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="group commit")
        return await future

    async def settled(self) -> None:
        """Return when all that was given so far is committed, or was refused."""
        open_ = {future for _, future in self._waiting} | self._being_written
        if open_:
            await asyncio.wait(open_)

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: Sequence[tuple[T, "asyncio.Future[R]"]]) -> None:
        futures = [future for _, future in batch]
        self._being_written = set(futures)
        try:
            results = await self._commit([item for item, _ in batch])
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for future, result in zip(futures, results, strict=True):
                if not future.done():
                    future.set_result(result)
        finally:
            self._being_written = set()
