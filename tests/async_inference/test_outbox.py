"""The outbox's rules, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from moorage.async_inference.base import Notice
from moorage.async_inference.outbox import Backoff, Outbox, insert_notices
from moorage.storage.database import Database, open_database
from moorage.storage.schema import async_notices

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, backoff=Backoff(first_seconds=8, longest_seconds=60))


def notice(number: int, topic: str = "a") -> Notice:
    return Notice(
        account_id="000000000000", topic_arn=topic, message=f'{{"é":{number}}}', invocation_id=f"i{number}"
    )


async def due(outbox: Outbox, now: datetime, most: int = 10, **without: object) -> list[str | None]:
    owed = await outbox.due(now, most, **without)  # type: ignore[arg-type]
    return [each.notice.invocation_id for each in owed]


async def test_what_was_added_is_due_at_once_and_the_oldest_first(outbox: Outbox) -> None:
    await outbox.add([notice(2), notice(3)], NOON)
    await outbox.add([notice(1)], NOON - SECOND)
    await outbox.add([], NOON)
    (first, *_) = await outbox.due(NOON, 10)
    assert (first.notice, first.created_time, first.attempts) == (notice(1), NOON - SECOND, 0)
    assert await due(outbox, NOON) == ["i1", "i2", "i3"]
    assert await due(outbox, NOON, 2) == ["i1", "i2"]
    assert await due(outbox, NOON - SECOND) == ["i1"]
    assert await outbox.next_due() == NOON - SECOND


async def test_notices_share_the_fate_of_the_transaction_that_wrote_them(
    database: Database, outbox: Outbox
) -> None:
    with pytest.raises(LookupError):
        async with database.write() as connection:
            await insert_notices(connection, [notice(1)], NOON)
            raise LookupError
    assert await outbox.next_due() is None
    async with database.write() as connection:
        await insert_notices(connection, [notice(2)], NOON)
        await insert_notices(connection, [], NOON)
    assert await due(outbox, NOON) == ["i2"]


async def test_delivered_notices_are_forgotten(outbox: Outbox) -> None:
    await outbox.add([notice(1), notice(2)], NOON)
    first, _ = await outbox.due(NOON, 10)
    await outbox.delivered(first)
    assert await due(outbox, NOON) == ["i2"]


async def test_failed_notices_come_back_later_and_later(database: Database, outbox: Outbox) -> None:
    await outbox.add([notice(1)], NOON)
    now, pauses = NOON, []
    for attempts in range(6):
        (owed,) = await outbox.due(now, 10)
        assert owed.attempts == attempts
        again = await outbox.failed(owed, "not there\0" + "x" * 5000, now)
        assert await outbox.next_due() == again
        assert await due(outbox, again - timedelta(microseconds=1)) == []
        pauses.append((again - now).total_seconds())
        now = again
    for pause, whole in zip(pauses, [8, 16, 32, 60, 60, 60], strict=True):
        assert whole * 0.75 <= pause <= whole
    async with database.read() as connection:
        error = await connection.scalar(select(async_notices.c.last_error))
    assert error is not None
    assert error.startswith("not therex")
    assert len(error) == 1000


def test_pauses_vary_and_never_exceed_the_longest() -> None:
    backoff = Backoff()
    pauses = {backoff.pause(10_000) for _ in range(20)}
    assert len(pauses) > 1
    assert max(pauses) <= timedelta(minutes=5)


async def test_topics_and_notices_can_be_left_out(outbox: Outbox) -> None:
    await outbox.add([notice(1, "a"), notice(2, "b")], NOON)
    await outbox.add([notice(3, "b")], NOON + SECOND)
    _, second = await outbox.due(NOON, 10)
    assert await due(outbox, NOON + SECOND, 1, except_topics=["a"]) == ["i2"]
    without = {"except_topics": ["a"], "except_sequences": (second.sequence,)}
    assert await due(outbox, NOON + SECOND, **without) == ["i3"]
    assert await outbox.next_due(**without) == NOON + SECOND  # type: ignore[arg-type]
    assert await outbox.next_due(except_topics=["a", "b"]) is None


async def test_only_old_notices_of_the_topic_are_given_up(outbox: Outbox) -> None:
    await outbox.add([notice(1, "a"), notice(2, "b")], NOON)
    await outbox.add([notice(3, "a")], NOON + SECOND)
    assert await outbox.given_up("a", created_before=NOON, most=9) == []
    assert await outbox.given_up("a", created_before=NOON + SECOND, most=9) == ["i1"]
    assert await due(outbox, NOON + SECOND) == ["i2", "i3"]


async def test_a_restart_keeps_what_is_owed(database_url: str) -> None:
    database = await open_database(database_url)
    await Outbox(database).add([notice(1)], NOON)
    await database.close()
    database = await open_database(database_url)
    assert await due(Outbox(database), NOON) == ["i1"]
    await database.close()
