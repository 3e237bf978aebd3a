"""The outbox: notices that are owed to topics, kept in the database until they are delivered or given up.

A notice is written in the transaction that writes what it tells of, so neither is ever there without the other. Its
row goes when it has been delivered; a death between the two makes it be sent twice, which is what SNS promises too
(at least once).
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.async_inference.base import Notice
from moorage.storage.database import Database
from moorage.storage.schema import async_notices as table

_LONGEST_ERROR = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait after a number of failures in a row: doubled by each, up to a cap, and less by chance.

    The chance (up to a quarter of the wait) keeps notices that failed together from coming back together.
    """

    first_seconds: float = 1.0
    longest_seconds: float = 300.0

    def pause(self, failures: int) -> timedelta:
        whole = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        return timedelta(seconds=whole * random.uniform(0.75, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A notice in the outbox. `attempts` is how often it was sent in vain."""

    sequence: int
    notice: Notice
    created_time: datetime
    attempts: int


async def insert_notices(connection: AsyncConnection, notices: Sequence[Notice], now: datetime) -> None:
    """Owe these notices from `now` on, as part of the caller's transaction."""
    if notices:
        await connection.execute(
            insert(table),
            [
                {
                    "account_id": notice.account_id,
                    "topic_arn": notice.topic_arn,
                    "message": notice.message,
                    "invocation_id": notice.invocation_id,
                    "created_time": now,
                    "send_after": now,
                    "attempts": 0,
                }
                for notice in notices
            ],
        )


class Outbox:
    """The notices owed, oldest due first. Times are the caller's, by one clock that never steps: `now` is always
    given.

    `except_topics` and `except_sequences` leave out what rests or is being sent at the moment.
    """

    def __init__(self, database: Database, *, backoff: Backoff | None = None) -> None:
        self._database = database
        self.backoff = backoff or Backoff()

    async def add(self, notices: Sequence[Notice], now: datetime) -> None:
        """Owe these notices, in a transaction of their own."""
        async with self._database.write() as connection:
            await insert_notices(connection, notices, now)

    async def due(
        self,
        now: datetime,
        most: int,
        *,
        except_topics: Collection[str] = (),
        except_sequences: Collection[int] = (),
    ) -> list[Owed]:
        """Up to `most` notices that can be sent now."""
        found: list[Row[Any]] = []
        async with self._database.read() as connection:
            topics = await _first_of_topics(connection, except_topics, except_sequences)
            # A topic that comes later in this order has nothing that is earlier than so many others.
            for topic_arn, first in topics[:most]:
                if first <= now:
                    query = (
                        select(table)
                        .where(table.c.topic_arn == topic_arn, table.c.send_after <= now)
                        .where(table.c.sequence.not_in(except_sequences))
                        .order_by(table.c.send_after, table.c.sequence)
                        .limit(most)
                    )
                    found += (await connection.execute(query)).all()
        found.sort(key=lambda row: (row.send_after, row.sequence))
        return [
            Owed(
                sequence=row.sequence,
                notice=Notice(
                    account_id=row.account_id,
                    topic_arn=row.topic_arn,
                    message=row.message,
                    invocation_id=row.invocation_id,
                ),
                created_time=row.created_time,
                attempts=row.attempts,
            )
            for row in found[:most]
        ]

    async def next_due(
        self, *, except_topics: Collection[str] = (), except_sequences: Collection[int] = ()
    ) -> datetime | None:
        """When the next notice can be sent (in the past: now); None if none is owed."""
        async with self._database.read() as connection:
            topics = await _first_of_topics(connection, except_topics, except_sequences)
        return topics[0][1] if topics else None

    async def latest_due(self) -> datetime | None:
        """When the last of the notices can be sent; None if none is owed."""
        async with self._database.read() as connection:
            rows = await connection.execute(_of_topics(func.max(table.c.send_after)))
            return max((row.time for row in rows if row.time is not None), default=None)

    async def delivered(self, owed: Owed) -> None:
        """It has arrived: forget it."""
        async with self._database.write() as connection:
            await connection.execute(delete(table).where(table.c.sequence == owed.sequence))

    async def failed(self, owed: Owed, error: str, now: datetime) -> datetime:
        """It could not be sent, for this reason; returns when it is due again."""
        attempts = owed.attempts + 1
        send_after = now + self.backoff.pause(attempts)
        reason = error.replace("\0", "")[:_LONGEST_ERROR]  # PostgreSQL's text has no NUL
        async with self._database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.sequence == owed.sequence)
                .values(attempts=attempts, send_after=send_after, last_error=reason)
            )
        return send_after

    async def given_up(self, topic_arn: str, *, created_before: datetime, most: int) -> list[str | None]:
        """Forget up to `most` notices owed to a topic since before then; returns the ids of their invocations."""
        oldest = (
            select(table.c.sequence)
            .where(table.c.topic_arn == topic_arn, table.c.created_time < created_before)
            .order_by(table.c.created_time)
            .limit(most)
        )
        async with self._database.read() as connection:
            sequences = (await connection.scalars(oldest)).all()
        if not sequences:
            return []
        statement = delete(table).where(table.c.sequence.in_(sequences)).returning(table.c.invocation_id)
        async with self._database.write() as connection:
            return list((await connection.scalars(statement)).all())


async def _first_of_topics(
    connection: AsyncConnection, except_topics: Collection[str], except_sequences: Collection[int]
) -> list[tuple[str, datetime]]:
    """The topics that are owed something, with the time of what is to be sent first, and in the order of that."""
    first = _of_topics(func.min(table.c.send_after), table.c.sequence.not_in(except_sequences))
    return sorted(
        (
            (row.topic_arn, row.time)
            for row in await connection.execute(first)
            if row.time is not None and row.topic_arn not in except_topics
        ),
        key=lambda found: found[1],
    )


def _of_topics(
    time: ColumnElement[datetime], *conditions: ColumnElement[bool]
) -> Select[tuple[str, datetime]]:
    """A `time` of each topic that is owed something. Goes from topic to topic by the index, so that it takes a moment
    however much a topic is owed that does not answer."""
    first = select(func.min(table.c.topic_arn).label("topic_arn")).cte("topics", recursive=True)
    following = (
        select(func.min(table.c.topic_arn)).where(table.c.topic_arn > first.c.topic_arn).scalar_subquery()
    )
    topics = first.union_all(select(following).where(first.c.topic_arn.is_not(None)))
    of_topic = select(time).where(table.c.topic_arn == topics.c.topic_arn, *conditions).scalar_subquery()
    return select(topics.c.topic_arn, of_topic.label("time")).where(topics.c.topic_arn.is_not(None))
