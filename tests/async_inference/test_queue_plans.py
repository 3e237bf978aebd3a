"""No statement of the queue reads more rows than it answers with: SQLite's plans of all of them.

The plans do not depend on how many rows there are. `benchmarks/queue_growth.py` measures both databases with a
million.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from moorage.async_inference.base import FINAL, Notice, Status
from moorage.async_inference.outbox import Outbox
from moorage.async_inference.purge import purge
from moorage.async_inference.sql import SqlQueue
from moorage.storage.database import Database, open_database
from tests.async_inference.test_queue import ACCOUNT, ENDPOINT, KEY, invocation, outcome

TABLES = ("async_invocations", "async_bodies", "async_notices")
WHOLE = (
    "async_invocations_ended (account_id=?)",
    "(account_id=? AND endpoint_name=?)",
    "by_account (account_id=?)",
)
"""Ends of steps that read all that an account or an endpoint has, unless a LIMIT ends them."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}")
    yield database
    await database.close()


@pytest.fixture
def statements(database: Database) -> list[tuple[str, Any]]:
    """What is sent to the database from now on."""
    sent: list[tuple[str, Any]] = []

    def note(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        sent.append((statement, parameters[0] if many else parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    return sent


async def costly_steps(database: Database, statements: list[tuple[str, Any]]) -> set[tuple[str, str]]:
    """The steps of plans that read a table as a whole, or sort what may be many, with their statements."""
    found = set()
    async with database.engine.connect() as connection:
        for statement, parameters in list(statements):
            if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")) or "async_" not in statement:
                continue
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [str(row[-1]) for row in plan]
            for step in steps:
                scans = any(step.startswith(f"SCAN {table}") for table in TABLES)
                sorts = "TEMP B-TREE FOR ORDER BY" in step
                whole = step.endswith(WHOLE) and "LIMIT" not in statement
                few = "async_invocations_running" in (steps[0] if sorts else step)
                if (scans or sorts or whole) and not few:
                    found.add((step, statement))
    return found


async def test_no_statement_reads_more_than_it_answers_with(
    database: Database, statements: list[tuple[str, Any]]
) -> None:
    queue = SqlQueue(database)
    notice = Notice(account_id=ACCOUNT, topic_arn="arn:aws:sns:us-east-1:000000000000:t", message="{}")
    for status in (*FINAL, *FINAL):
        await queue.put(invocation())
        [claim] = await queue.claim(*KEY, most=1)
        await queue.finish(claim, outcome(status, notices=(notice,)))
    await queue.put(invocation())
    await queue.put(invocation(ttl_seconds=-1))
    [claim, *_] = await queue.claim(*KEY, most=9)
    await queue.release(claim, delay_seconds=1)
    await queue.recover()
    await queue.claim_expired(most=9)
    await queue.take(ACCOUNT, claim.invocation.invocation_id)
    await queue.seconds_to_claimable(*KEY)
    await queue.seconds_to_expiry()
    await queue.has_unfinished(*KEY)
    await queue.backlogged()
    await queue.unfinished()
    await queue.backlogs(ACCOUNT)
    for endpoint in (None, ENDPOINT):
        for status in (None, *Status):
            await queue.records(ACCOUNT, endpoint_name=endpoint, status=status)
            await queue.records(ACCOUNT, endpoint_name=endpoint, status=status, before=5)
    [(_, failed), *_] = await queue.records(ACCOUNT, status=Status.FAILED)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await queue.requeue(ACCOUNT, failed.invocation.invocation_id, expires_time=later)
    assert await purge(queue, finished_before=later) == (5, True)
    outbox = Outbox(database)
    [owed, *_] = await outbox.due(later, 9, except_topics=["x"], except_sequences=[1])
    await outbox.failed(owed, "no", later)
    await outbox.next_due(except_topics=["x"], except_sequences=[1])
    await outbox.latest_due()
    await outbox.delivered(owed)
    await outbox.given_up(owed.notice.topic_arn, created_before=later, most=9)
    assert len(statements) > 60
    assert await costly_steps(database, statements) == set()


async def test_what_a_plan_costs_is_seen(database: Database, statements: list[tuple[str, Any]]) -> None:
    """The check above finds what it is for."""
    async with database.read() as connection:
        await connection.exec_driver_sql("SELECT count(*) FROM async_invocations WHERE reason = 'x'")
        await connection.exec_driver_sql(
            "SELECT * FROM async_invocations WHERE account_id = '' ORDER BY reason"
        )
    found = {step for step, _ in await costly_steps(database, statements)}
    assert found == {"SCAN async_invocations", "USE TEMP B-TREE FOR ORDER BY"}
