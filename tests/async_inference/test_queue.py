"""The queue's rules, on both databases."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import case, func, select

from moorage.async_inference.base import AsyncInvocation, Claim, Forgotten, Notice, Outcome, Status
from moorage.async_inference.outbox import Outbox
from moorage.async_inference.purge import purge
from moorage.async_inference.sql import SqlQueue
from moorage.storage import schema
from moorage.storage.database import Database, open_database

ACCOUNT, ENDPOINT = "000000000000", "demo"
KEY = (ACCOUNT, ENDPOINT)


@pytest.fixture
def queue(database: Database) -> SqlQueue:
    return SqlQueue(database)


def invocation(number: int = 0, *, ttl_seconds: float = 21_600, **changes: Any) -> AsyncInvocation:
    now = datetime.now(UTC)
    members: dict[str, Any] = {
        "invocation_id": str(uuid.uuid4()),
        "account_id": ACCOUNT,
        "endpoint_name": ENDPOINT,
        "inference_id": f"inference-{number}",
        "received_time": now,
        "expires_time": now + timedelta(seconds=ttl_seconds),
        "timeout_seconds": 900,
        "body": b"%d" % number,
    }
    return AsyncInvocation(**{**members, **changes})


def outcome(status: Status = Status.COMPLETED, **members: Any) -> Outcome:
    return Outcome(status=status, finished_time=datetime.now(UTC), **members)


async def claim_one(queue: SqlQueue) -> Claim | None:
    claims = await queue.claim(*KEY, most=1)
    return claims[0] if claims else None


async def claimed(queue: SqlQueue) -> Claim:
    claim = await claim_one(queue)
    assert claim is not None
    return claim


async def check_counts(database: Database) -> None:
    """The numbers that are kept are those of the rows."""
    table, counts = schema.async_invocations, schema.async_counts
    status = case(
        (table.c.status.is_not(None), table.c.status),
        (table.c.token.is_(None), "Queued"),
        else_="Running",
    )
    counted = select(table.c.account_id, table.c.endpoint_name, status, func.count()).group_by(
        table.c.account_id, table.c.endpoint_name, status
    )
    async with database.read() as connection:
        kept = {tuple(row) for row in await connection.execute(select(counts).where(counts.c.number != 0))}
        assert kept == {tuple(row) for row in await connection.execute(counted)}


async def test_an_invocation_comes_back_as_it_was_accepted(queue: SqlQueue) -> None:
    given = invocation(
        content_type="text/csv",
        accept="application/json",
        custom_attributes="a=1",
        input_location=None,
        body=bytes(range(256)),
        output_location="s3://b/o.out",
        failure_location="s3://b/e.out",
        success_topic="arn:aws:sns:us-east-1:000000000000:good",
        error_topic="arn:aws:sns:us-east-1:000000000000:bad",
        include_response_in=("SUCCESS_NOTIFICATION_TOPIC",),
    )
    await queue.put(given)
    claim = await claimed(queue)
    assert claim.invocation == given
    assert (claim.attempt, claim.deaths, claim.retrying_since) == (1, 0, None)


async def test_the_oldest_comes_first(queue: SqlQueue) -> None:
    given = [invocation(number) for number in range(20)]
    for each in given:
        await queue.put(each)
    first = await queue.claim(*KEY, most=15)
    rest = await queue.claim(*KEY, most=15)
    assert [claim.invocation for claim in (*first, *rest)] == given


async def test_no_two_claimants_get_the_same(queue: SqlQueue) -> None:
    puts = [invocation(number) for number in range(100)]
    await asyncio.gather(*(queue.put(each) for each in puts))
    given = {each.invocation_id: 0 for each in puts}

    async def claimant() -> None:
        while claims := await queue.claim(*KEY, most=7):
            for claim in claims:
                given[claim.invocation.invocation_id] += 1

    await asyncio.gather(*(claimant() for _ in range(5)))
    assert set(given.values()) == {1}


async def test_endpoints_and_accounts_have_queues_of_their_own(queue: SqlQueue) -> None:
    await queue.put(invocation(account_id="111111111111"))
    await queue.put(invocation(endpoint_name="other"))
    assert await claim_one(queue) is None
    assert sorted(await queue.backlogged()) == [(ACCOUNT, "other"), ("111111111111", ENDPOINT)]


async def test_what_a_process_held_when_it_ended_is_recovered_and_the_dead_cannot_finish(
    queue: SqlQueue, database: Database
) -> None:
    await queue.put(invocation())
    dead = await claimed(queue)
    next_process = SqlQueue(database)
    assert await claim_one(next_process) is None
    assert await next_process.recover() == [KEY]
    second = await claimed(next_process)
    assert (second.attempt, second.first_claimed_time) == (2, dead.first_claimed_time)
    assert not await queue.finish(dead, outcome())
    assert not await queue.release(dead)
    assert await next_process.recover() == []
    assert await next_process.finish(second, outcome())
    assert not await next_process.finish(second, outcome(Status.FAILED))
    [record] = await queue.find(ACCOUNT, second.invocation.invocation_id)
    assert (record.status, record.attempts) == (Status.COMPLETED, 2)
    await check_counts(database)


async def test_only_what_is_in_nobodys_hands_is_recovered(queue: SqlQueue, database: Database) -> None:
    for number in range(3):
        await queue.put(invocation(number))
    held, abandoned, _ = await queue.claim(*KEY, most=3)
    queue.abandon(abandoned)
    assert await queue.recover() == [KEY]
    again = await claimed(queue)
    assert again.invocation == abandoned.invocation
    assert not await queue.finish(abandoned, outcome())
    assert await queue.finish(held, outcome())
    assert await queue.recover() == []
    await check_counts(database)


async def test_a_completed_one_needs_its_body_no_more_and_a_failed_one_does(
    queue: SqlQueue, database: Database
) -> None:
    for status in (Status.COMPLETED, Status.FAILED, Status.EXPIRED):
        await queue.put(invocation(1))
        await queue.finish(await claimed(queue), outcome(status))
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(schema.async_bodies)) == 2
    for _, record in await queue.records(ACCOUNT):
        id = record.invocation.invocation_id
        later = datetime.now(UTC) + timedelta(hours=6)
        assert await queue.requeue(ACCOUNT, id, expires_time=later) is (record.status is not Status.COMPLETED)
    assert [claim.invocation.body for claim in await queue.claim(*KEY, most=9)] == [b"1", b"1"]
    await check_counts(database)


async def test_what_is_given_back_comes_to_the_front_unless_it_is_to_wait(queue: SqlQueue) -> None:
    for number in range(3):
        await queue.put(invocation(number))
    first = await claimed(queue)
    assert await queue.release(first, unattempted=True)
    again = await claimed(queue)
    assert (again.invocation, again.attempt) == (first.invocation, 1)
    since = datetime.now(UTC)
    assert await queue.release(again, delay_seconds=60, died=True, retrying_since=since)
    assert (await claimed(queue)).invocation.inference_id == "inference-1"
    assert (await claimed(queue)).invocation.inference_id == "inference-2"
    assert await claim_one(queue) is None
    taken = await queue.take(ACCOUNT, first.invocation.invocation_id)
    assert taken is not None
    assert (taken.deaths, taken.retrying_since, taken.attempt) == (1, since, 2)


async def test_only_what_nobody_holds_can_be_taken(queue: SqlQueue) -> None:
    await queue.put(invocation())
    claim = await claimed(queue)
    assert await queue.take(ACCOUNT, claim.invocation.invocation_id) is None
    assert await queue.take("111111111111", claim.invocation.invocation_id) is None
    await queue.finish(claim, outcome())
    assert await queue.take(ACCOUNT, claim.invocation.invocation_id) is None


async def test_what_outlives_its_time_is_found_whatever_its_endpoint(queue: SqlQueue) -> None:
    await queue.put(invocation(1, ttl_seconds=-1))
    await queue.put(invocation(2, ttl_seconds=-2, endpoint_name="other"))
    await queue.put(invocation(3, ttl_seconds=60))
    held = invocation(4, ttl_seconds=-3, endpoint_name="third")
    await queue.put(held)
    await queue.claim(ACCOUNT, "third", most=1)
    expired = await queue.claim_expired(most=10)
    assert [claim.invocation.inference_id for claim in expired] == ["inference-2", "inference-1"]
    assert await queue.claim_expired(most=10) == []
    pause = await queue.seconds_to_expiry()
    assert pause is not None
    assert 0 < pause <= 60


async def test_a_notice_is_owed_exactly_when_its_invocation_is_finished(
    queue: SqlQueue, database: Database
) -> None:
    await queue.put(invocation())
    lost = await claimed(queue)
    queue.abandon(lost)
    await queue.recover()
    held = await claimed(queue)
    notice = Notice(account_id=ACCOUNT, topic_arn="arn:aws:sns:us-east-1:000000000000:t", message="{}")
    outbox = Outbox(database)
    results = await asyncio.gather(
        queue.finish(lost, outcome(notices=(notice,))), queue.finish(held, outcome(notices=(notice,)))
    )
    assert results == [False, True]
    assert len(await outbox.due(datetime.now(UTC) + timedelta(seconds=1), 10)) == 1


async def test_puts_at_the_same_moment_share_commits(queue: SqlQueue, database: Database) -> None:
    commits = 0
    write = database.write

    def counted() -> Any:
        nonlocal commits
        commits += 1
        return write()

    database.write = counted  # type: ignore[method-assign]
    await asyncio.gather(*(queue.put(invocation(number)) for number in range(200)))
    assert commits <= 3
    assert len(await queue.claim(*KEY, most=500)) == 200


async def test_a_put_that_cannot_be_stored_tells_its_caller_and_no_other(queue: SqlQueue) -> None:
    given = invocation()
    await queue.put(given)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await queue.put(given)
    await queue.put(invocation(1))
    await queue.settled()
    assert len(await queue.claim(*KEY, most=10)) == 2


async def test_a_failed_one_can_be_run_again(queue: SqlQueue) -> None:
    await queue.put(invocation())
    claim = await claimed(queue)
    id = claim.invocation.invocation_id
    later = datetime.now(UTC) + timedelta(hours=6)
    assert not await queue.requeue(ACCOUNT, id, expires_time=later)
    await queue.finish(claim, outcome(Status.FAILED, reason="it broke"))
    assert await queue.requeue(ACCOUNT, id, expires_time=later)
    again = await claimed(queue)
    assert again.attempt == 2
    assert again.invocation.body == claim.invocation.body
    await queue.finish(again, outcome())
    assert not await queue.requeue(ACCOUNT, id, expires_time=later)


async def test_backlogs_and_records_tell_how_each_stands(queue: SqlQueue) -> None:
    for number in range(5):
        await queue.put(invocation(number))
    first, second, _ = await queue.claim(*KEY, most=3)
    await queue.finish(first, outcome())
    await queue.finish(second, outcome(Status.FAILED, reason="it broke"))
    [backlog] = await queue.backlogs(ACCOUNT)
    assert backlog.counts == {
        Status.QUEUED: 2,
        Status.RUNNING: 1,
        Status.COMPLETED: 1,
        Status.FAILED: 1,
    }
    assert backlog.oldest_received_time is not None
    assert (backlog.received_last_minute, backlog.finished_last_minute) == (5, 2)
    listed = await queue.records(ACCOUNT, endpoint_name=ENDPOINT, most=2)
    assert [record.invocation.inference_id for _, record in listed] == ["inference-4", "inference-3"]
    more = await queue.records(ACCOUNT, before=listed[-1][0])
    assert [record.status for _, record in more] == [Status.RUNNING, Status.FAILED, Status.COMPLETED]
    [(_, failed)] = await queue.records(ACCOUNT, status=Status.FAILED)
    assert failed.reason == "it broke"
    assert len(await queue.records(ACCOUNT, status=Status.QUEUED)) == 2


async def test_only_finished_ones_are_forgotten(queue: SqlQueue, database: Database) -> None:
    for number in range(3):
        await queue.put(invocation(number))
    await queue.finish(await claimed(queue), outcome())
    await claimed(queue)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    assert await purge(queue, finished_before=soon, account_id="111111111111") == (0, True)
    assert await purge(queue, finished_before=datetime.now(UTC) - timedelta(hours=1)) == (0, True)
    assert await purge(queue, finished_before=soon, account_id=ACCOUNT, endpoint_name=ENDPOINT) == (1, True)
    assert len(await queue.records(ACCOUNT)) == 2
    await check_counts(database)


async def test_a_purge_is_many_short_transactions(queue: SqlQueue, database: Database) -> None:
    """In one, everything that is accepted meanwhile would wait for it."""
    await asyncio.gather(*(queue.put(invocation(number)) for number in range(1500)))
    while claims := await queue.claim(*KEY, most=500):
        await asyncio.gather(*(queue.finish(claim, outcome(Status.FAILED)) for claim in claims))
    await queue.put(invocation())
    sizes = []
    forget = queue.forget

    async def watched(numbers: Sequence[int], **options: Any) -> Forgotten:
        forgotten = await forget(numbers, **options)
        sizes.append(forgotten.number)
        return forgotten

    queue.forget = watched  # type: ignore[method-assign]
    soon = datetime.now(UTC) + timedelta(seconds=1)
    number, complete = await purge(queue, finished_before=soon, within_seconds=0.0)
    assert (number, complete) == (100, False)
    assert await purge(queue, finished_before=soon) == (1400, True)
    assert sum(sizes) == 1500
    assert max(sizes) <= 1000
    assert len(sizes) >= 4
    async with database.read() as connection:
        for table in (schema.async_invocations, schema.async_bodies):
            assert await connection.scalar(select(func.count()).select_from(table)) == 1
    await check_counts(database)


async def test_what_was_put_survives_the_process(database_url: str) -> None:
    database = await open_database(database_url)
    given = invocation()
    await SqlQueue(database).put(given)
    await database.close()
    database = await open_database(database_url)
    assert (await claimed(SqlQueue(database))).invocation == given
    await database.close()


async def test_the_unfinished_of_every_account(queue: SqlQueue) -> None:
    assert await queue.unfinished() == []
    first, second = invocation(1), invocation(2, account_id="111122223333")
    await queue.put(first)
    await queue.put(invocation(3))
    await queue.put(second)
    running = await claimed(queue)
    assert running.invocation.invocation_id == first.invocation_id
    found = {item.account_id: (item.number, item.oldest_received_time) for item in await queue.unfinished()}
    assert found == {ACCOUNT: (2, first.received_time), "111122223333": (1, second.received_time)}
    await queue.finish(running, outcome())
    assert sorted(item.number for item in await queue.unfinished()) == [1, 1]
