"""A database that hangs, goes away or is locked: every wait ends in time, and all is as before when it is back."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select, text

from moorage.resources import Model
from moorage.storage import schema
from moorage.storage.base import ListQuery
from moorage.storage.database import Database, open_database
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.resources import SqlResourceStore
from tests.postgres import PostgresServer

from .samples import ACCOUNT, model

SECONDS = 0.5
"""The time-out of the databases here."""
LIMIT = SECONDS + 2.0
"""That, the second in which it is found out whether anybody is answered, and one for a busy machine."""


@pytest.fixture
async def database(breakable_postgres_url: str) -> AsyncIterator[Database]:
    database = await open_database(breakable_postgres_url, timeout_seconds=SECONDS)
    yield database
    await database.close()


async def change(database: Database, value: str) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE secrets SET value = :value"), {"value": value})


async def value(database: Database) -> str:
    async with database.read() as connection:
        return str(await connection.scalar(text("SELECT value FROM secrets")))


async def one_row(database: Database) -> None:
    await database.rows(select(schema.secrets))


async def is_unavailable(work: Callable[[], Awaitable[object]]) -> float:
    """How long it took to say so."""
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await work()
    return time.monotonic() - began


async def is_back(database: Database) -> None:
    back = asyncio.Event()
    database.outage.on_change = back.set
    if database.outage.since is not None:
        await back.wait()


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again(
    breakable_postgres_server: PostgresServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.gather(*(one_row(database) for _ in range(8)))  # so that some connections are there already
    breakable_postgres_server.freeze()
    try:
        works = [lambda: one_row(database), lambda: value(database), lambda: change(database, "hung")]
        took = await asyncio.gather(*(is_unavailable(work) for work in 12 * works))
        assert max(took) < LIMIT
        assert await is_unavailable(lambda: one_row(database)) < LIMIT
        assert database.outage.since is not None
        assert await is_unavailable(lambda: one_row(database)) < 0.1, "nobody waits for what is known"
    finally:
        breakable_postgres_server.thaw()
    await is_back(database)
    await change(database, "back")
    assert await value(database) == "back"
    lines = [record.getMessage() for record in caplog.records if record.name == "moorage.storage.outage"]
    assert len(lines) == 2
    assert "does not answer in time: the control plane is unavailable" in lines[0]
    assert "answers again after" in lines[1]
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_transaction_that_has_begun_when_the_server_hangs_is_given_up(
    breakable_postgres_server: PostgresServer, database: Database
) -> None:
    before = await value(database)

    async def hang() -> None:
        async with database.write() as connection:
            await connection.execute(text("UPDATE secrets SET value = 'half'"))
            breakable_postgres_server.freeze()
            await connection.execute(text("UPDATE secrets SET value = 'whole'"))

    try:
        assert await is_unavailable(hang) < LIMIT
    finally:
        breakable_postgres_server.thaw()
    await is_back(database)
    assert await value(database) == before


async def test_a_server_that_is_gone_is_noticed_at_once_and_used_again(
    breakable_postgres_server: PostgresServer, database: Database
) -> None:
    await one_row(database)
    breakable_postgres_server.stop()
    try:
        assert await is_unavailable(lambda: change(database, "gone")) < LIMIT
        assert await is_unavailable(lambda: one_row(database)) < LIMIT
    finally:
        breakable_postgres_server.start()
    await is_back(database)
    await change(database, "back")
    assert await value(database) == "back"


async def test_a_statement_that_is_too_slow_fails_alone(database: Database) -> None:
    async def sleep() -> None:
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    slow = asyncio.create_task(is_unavailable(sleep))
    await change(database, "meanwhile")
    assert await slow < LIMIT
    assert database.outage.since is None


async def test_a_lock_that_another_holds_is_not_waited_for_without_end(
    breakable_postgres_url: str, database: Database
) -> None:
    other = await open_database(breakable_postgres_url, timeout_seconds=60.0)
    async with other.write() as connection:
        await connection.execute(text("UPDATE secrets SET value = 'locked'"))
        assert await is_unavailable(lambda: change(database, "waits")) < LIMIT
        await one_row(database)
    await change(database, "free")
    await other.close()


async def test_the_server_ends_transactions_of_those_that_are_paused(database: Database) -> None:
    """Else the locks that they have would be theirs for as long as their process sleeps."""
    async with database.read() as connection:
        assert await connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1500ms"
        assert await connection.scalar(text("SHOW statement_timeout")) == "450ms"


async def test_a_sqlite_file_that_another_process_has_locked(tmp_path: Path) -> None:
    path = tmp_path / "moorage.db"
    database = await open_database(f"sqlite+aiosqlite:///{path}", timeout_seconds=SECONDS)
    store = SqlResourceStore(database)
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    took = await asyncio.gather(
        *(is_unavailable(lambda n=n: store.create(model(f"m{n}"), {})) for n in range(20))  # type: ignore[misc]
    )
    assert max(took) < LIMIT
    assert (await store.page(Model, ACCOUNT, ListQuery())).items == (), "who reads does not wait"
    locker.execute("ROLLBACK")
    locker.close()
    await is_back(database)
    assert await store.create(model(), {})
    await database.close()


async def test_a_database_that_ends_while_it_is_looked_for(
    breakable_postgres_server: PostgresServer, breakable_postgres_url: str
) -> None:
    database = await open_database(breakable_postgres_url, timeout_seconds=SECONDS)
    breakable_postgres_server.freeze()
    try:
        await is_unavailable(lambda: one_row(database))
        await database.close()
    finally:
        breakable_postgres_server.thaw()
