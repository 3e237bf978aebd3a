"""One transaction for what many want written at the same moment: each waits for one commit, and all for few."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from moorage.async_inference.base import QueueOverloaded

T = TypeVar("T")
R = TypeVar("R")

_BATCH_ITEMS = 256
_BATCH_BYTES = 4 * 1024 * 1024
_WAITING_BYTES = 64 * 1024 * 1024


class GroupCommit(Generic[T, R]):
    """`commit` writes a batch in one transaction, and gives one result for each item.

    While one batch is being written the next one gathers. What `commit` raises, every caller of that batch gets. A
    batch has 256 items at most, and no more than 4 MiB unless one item alone has, so that no transaction takes
    long. `size` gives the bytes of an item: more than 64 MiB are not kept waiting.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        size: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._commit = commit
        self._size = size
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._waiting_bytes = 0
        self._being_written: set[asyncio.Future[R]] = set()
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Return once the item is committed. Cancelling the caller does not take the item back.

        Raises:
            QueueOverloaded: too much is waiting.
        """
        size = self._size(item)
        if self._waiting and self._waiting_bytes + size > _WAITING_BYTES:
            raise QueueOverloaded(
                f"{len(self._waiting):,} wait to be stored: the database takes less than it is given"
            )
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._waiting_bytes += size
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
                await self._write_batch(self._next_batch())
        finally:
            self._writing = None

    def _next_batch(self) -> Sequence[tuple[T, "asyncio.Future[R]"]]:
        number, bytes_ = 0, 0
        for item, _ in self._waiting[:_BATCH_ITEMS]:
            size = self._size(item)
            if number and bytes_ + size > _BATCH_BYTES:
                break
            number, bytes_ = number + 1, bytes_ + size
        batch, self._waiting = self._waiting[:number], self._waiting[number:]
        self._waiting_bytes -= bytes_
        return batch

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
