"""Sends what the outbox owes. Topics do not wait for each other.

There are few threads, and a topic that does not answer holds one for ten seconds at a time. So a topic has one send
in flight until one has succeeded, and then not more than half of all; a topic that failed rests, longer with each
failure in a row, while its notices stay in the outbox. After the rest one notice tries again; when it arrives, the
others follow at once.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.async_inference.base import Notice
from moorage.async_inference.outbox import Outbox, Owed
from moorage.async_inference.senders import NotDelivered, Sender, create_sender
from moorage.clock import SteadyClock
from moorage.config import Settings
from moorage.storage.database import Database
from moorage.storage.failures import DatabaseUnavailable

_DATABASE_PAUSE_SECONDS = 2.0
_GIVEN_UP_AT_ONCE = 200
_GIVE_UP_PAUSE_SECONDS = 0.03
_EXAMPLES = 3
logger = logging.getLogger(__name__)


def create_publisher(
    settings: Settings, database: Database, *, clock: SteadyClock | None = None
) -> "Publisher":
    """The publisher that the settings describe; the caller closes the database after it. `clock` is that by which
    notices are put into the outbox.

    Raises:
        ValueError: SNS needs the root key, and its file is not one of ours.
    """
    return Publisher(outbox=Outbox(database), sender=create_sender(settings), clock=clock)


@dataclass(slots=True)
class _Topic:
    """What this process knows of a topic. `failures` are those in a row."""

    sending: int = 0
    proven: bool = False
    failures: int = 0
    rests_until: datetime | None = None


class Publisher:
    """Delivers every notice of an outbox at least once, or gives it up `patience` after it was written."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        sender: Sender,
        at_once: int = 8,
        patience: timedelta = timedelta(hours=24),
        clock: SteadyClock | None = None,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._at_once = at_once
        self._patience = patience
        self._now = clock or SteadyClock()
        self._topics: dict[str, _Topic] = {}
        self._sending: set[int] = set()
        self._woken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Publisher sending={len(self._sending)} resting={len(self._unavailable())}>"

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._woken.set()

    async def owe(self, notices: Sequence[Notice]) -> None:
        """Put these into the outbox, and send them."""
        await self._outbox.add(notices, self._now())
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled. A send that is in flight then may arrive, and is sent again by the next run."""
        threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="notify")
        try:
            while True:
                self._topics.clear()
                self._sending.clear()
                try:
                    latest = await self._outbox.latest_due()
                    if (
                        latest is not None
                    ):  # what an earlier process has stored rests no longer than it would have
                        self._now.not_before(latest - timedelta(seconds=self._outbox.backoff.longest_seconds))
                    async with asyncio.TaskGroup() as tasks:
                        await self._follow(tasks, threads)
                except* DatabaseUnavailable:
                    pass  # the log has been told; what was being sent is sent again
                await asyncio.sleep(_DATABASE_PAUSE_SECONDS)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, tasks: asyncio.TaskGroup, threads: Executor) -> None:
        while True:
            self._woken.clear()
            if not await self._start_due(tasks, threads):
                await self._wait()

    async def _start_due(self, tasks: asyncio.TaskGroup, threads: Executor) -> bool:
        """Begin to send what is due and may be sent; whether there was any."""
        free = self._at_once - len(self._sending)
        if free == 0:
            return False
        found = await self._outbox.due(
            self._now(), free, except_topics=self._unavailable(), except_sequences=tuple(self._sending)
        )
        started = False
        for owed in found:
            topic = self._topics.setdefault(owed.notice.topic_arn, _Topic())
            if self._is_available(topic):
                topic.sending += 1
                self._sending.add(owed.sequence)
                tasks.create_task(self._send(owed, topic, threads), name=f"notify {owed.notice.topic_arn}")
                started = True
        return started

    async def _wait(self) -> None:
        """Until something is new, or sent, or due, or has rested."""
        if len(self._sending) >= self._at_once:
            await self._woken.wait()
            return
        times = [topic.rests_until for topic in self._topics.values() if topic.rests_until is not None]
        due = await self._outbox.next_due(
            except_topics=self._unavailable(), except_sequences=tuple(self._sending)
        )
        times += [due] if due is not None else []
        delay = max(0.0, (min(times) - self._now()).total_seconds()) if times else None
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._woken.wait()

    def _unavailable(self) -> list[str]:
        return [arn for arn, topic in self._topics.items() if not self._is_available(topic)]

    def _is_available(self, topic: _Topic) -> bool:
        """Whether it neither rests nor has as many sends in flight as it may."""
        if topic.rests_until is not None and topic.rests_until <= self._now():
            topic.rests_until = None
        most = max(1, self._at_once // 2) if topic.proven else 1
        return topic.rests_until is None and topic.sending < most

    async def _send(self, owed: Owed, topic: _Topic, threads: Executor) -> None:
        try:
            error = await self._try_to_send(owed.notice, threads)
            if error is None:
                topic.proven, topic.failures, topic.rests_until = True, 0, None
                await self._outbox.delivered(owed)
            else:
                await self._note_failure(owed, topic, error)
        finally:
            topic.sending -= 1
            self._sending.discard(owed.sequence)
            self._woken.set()

    async def _try_to_send(self, notice: Notice, threads: Executor) -> str | None:
        """Why it could not be sent; None when it was."""
        try:
            await asyncio.get_running_loop().run_in_executor(threads, self._sender.send, notice)
        except NotDelivered as error:
            return str(error)
        except Exception as error:
            logger.exception("sending to %s failed in a way that is not foreseen", notice.topic_arn)
            return type(error).__name__
        return None

    async def _note_failure(self, owed: Owed, topic: _Topic, error: str) -> None:
        arn, now = owed.notice.topic_arn, self._now()
        topic.proven = False
        if topic.rests_until is None:  # else another send that was in flight with this one has failed already
            topic.failures += 1
            topic.rests_until = now + self._outbox.backoff.pause(topic.failures)
            if topic.failures == 1:
                logger.warning("cannot notify %s: %s; it is tried again", arn, error)
        await self._outbox.failed(owed, error, now)
        await self._give_up(arn, now - self._patience, error)

    async def _give_up(self, arn: str, created_before: datetime, error: str) -> None:
        """A few at a time, so that what is accepted meanwhile need not wait for the database."""
        number = 0
        examples: list[str | None] = []
        while True:
            ids = await self._outbox.given_up(arn, created_before=created_before, most=_GIVEN_UP_AT_ONCE)
            number += len(ids)
            examples += ids[: _EXAMPLES - len(examples)]
            if len(ids) < _GIVEN_UP_AT_ONCE:
                break
            await asyncio.sleep(_GIVE_UP_PAUSE_SECONDS)
        if number:
            named = ", ".join(id or "a test" for id in examples)
            others = f" and {number - len(examples):,} more" if number > len(examples) else ""
            logger.warning("gave up notifying %s of %s%s: %s", arn, named, others, error)
