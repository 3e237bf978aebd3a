"""Opening databases: migrations, settings of the connections, what a restart keeps."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from moorage.resources import Model
from moorage.storage import migrations, schema
from moorage.storage.base import ListQuery
from moorage.storage.database import Database, SchemaError, SqliteConnection, open_database
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.resources import SqlResourceStore

from .samples import ACCOUNT, model


async def revision(database: Database) -> str:
    async with database.read() as connection:
        return str((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one())


def test_the_newest_migration_is_the_one_that_is_expected() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.HEAD]


async def test_migrations_from_an_empty_database_give_the_schema_in_use(database_url: str) -> None:
    database = await open_database(database_url)
    assert await revision(database) == migrations.HEAD
    async with database.read() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), schema.metadata
            )
        )
    assert differences == []
    await database.close()


async def test_several_may_open_an_empty_database_at_once(database_url: str) -> None:
    databases = await asyncio.gather(*(open_database(database_url) for _ in range(4)))
    assert len({database.page_token_key for database in databases}) == 1
    stores = [SqlResourceStore(database) for database in databases]
    created = await asyncio.gather(*(store.create(model(), {}) for store in stores))
    assert sorted(created) == [False, False, False, True]
    for database in databases:
        await database.close()


async def test_a_restart_keeps_resources_tags_and_page_tokens(database_url: str) -> None:
    database = await open_database(database_url)
    store = SqlResourceStore(database)
    await store.create(model("m1", minutes=1), {"team": "red"})
    await store.create(model("m2", minutes=2), {})
    token = (await store.page(Model, ACCOUNT, ListQuery(max_results=1))).next_token
    await database.close()

    database = await open_database(database_url)
    store = SqlResourceStore(database)
    assert (await store.page(Model, ACCOUNT, ListQuery(next_token=token))).items == (model("m1", minutes=1),)
    assert await store.get_tags(model("m1").arn) == {"team": "red"}
    await database.close()


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    database = await open_database(database_url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(SchemaError, match="newer than this one"):
        await open_database(database_url)


async def test_alembic_is_not_imported_when_the_schema_is_there(sqlite_url: str) -> None:
    await (await open_database(sqlite_url)).close()
    program = (
        "import asyncio, sys\n"
        "from moorage.storage.database import open_database\n"
        "async def main():\n"
        f"    await (await open_database({sqlite_url!r})).close()\n"
        "asyncio.run(main())\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    result = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert result.returncode == 0


async def test_sqlite_is_set_to_be_durable(sqlite_url: str) -> None:
    database = await open_database(sqlite_url)
    async with database.read() as connection:
        settings = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    await database.close()


async def test_a_write_that_raises_is_undone(database_url: str) -> None:
    database = await open_database(database_url)
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM secrets"))
            raise ZeroDivisionError
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM secrets"))).scalar_one() == 1
    await database.close()


async def test_a_cancelled_write_is_undone_and_does_not_block_the_next(database_url: str) -> None:
    database = await open_database(database_url)
    inside = asyncio.Event()

    async def hold() -> None:
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM secrets"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await SqlResourceStore(database).create(model(), {})
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM secrets"))).scalar_one() == 1
    await database.close()


async def test_readers_do_not_wait_for_a_writer(database_url: str) -> None:
    database = await open_database(database_url)
    async with database.write() as writer:
        await writer.execute(text("DELETE FROM secrets"))
        async with database.read() as reader:
            assert (await reader.execute(text("SELECT count(*) FROM secrets"))).scalar_one() == 1
    await database.close()


async def test_rows_are_those_of_the_last_commit(database_url: str) -> None:
    database = await open_database(database_url)
    values = select(schema.secrets.c.value).where(schema.secrets.c.name == bindparam("name"))
    change = insert(schema.secrets).values(name="new", value="here")
    async with database.write() as connection:
        await connection.execute(change)
        assert await database.rows(values, name="new") == []
    assert [row.value for row in await database.rows(values, name="new")] == ["here"]
    await database.close()


async def test_rows_are_only_read(sqlite_url: str) -> None:
    database = await open_database(sqlite_url)
    with pytest.raises(DatabaseUnavailable, match="cannot be written"):
        await database.rows(text("DELETE FROM secrets"))
    await database.close()


@pytest.mark.parametrize("trusted_seconds", [0.0, 3600.0])
async def test_connections_that_the_server_has_closed_are_not_used_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, trusted_seconds: float
) -> None:
    monkeypatch.setattr("moorage.storage.database._TRUSTED_SECONDS", trusted_seconds)
    database = await open_database(postgres_url)
    async with database.read() as one, database.read() as other:
        lost = [await _lost(connection) for connection in (one, other)]
    killer = create_async_engine(postgres_url)
    everyone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    async with killer.connect() as connection:
        await connection.execute(text(f"{everyone} AND pid <> pg_backend_pid()"))
    await killer.dispose()
    await asyncio.gather(*(each.wait() for each in lost))
    async with database.read() as one, database.read():
        assert (await one.execute(text("SELECT count(*) FROM secrets"))).scalar_one() == 1
    assert len(await database.rows(select(schema.secrets))) == 1
    await database.close()


async def _lost(connection: AsyncConnection) -> asyncio.Event:
    """Set when the server has closed the connection."""
    lost = asyncio.Event()
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    driver.add_termination_listener(lambda _: lost.set())
    return lost


async def test_a_write_that_is_cancelled_leaves_no_lock(tmp_path: Path) -> None:
    """Whoever still holds a cursor of it, as the traceback of the cancellation does."""
    path = tmp_path / "database"
    with closing(sqlite3.connect(path)) as setting_up:
        setting_up.execute("CREATE TABLE t (a INTEGER)")
    connection = sqlite3.connect(path, factory=SqliteConnection, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    held = connection.execute("INSERT INTO t VALUES (1), (2) RETURNING a")
    connection.close()
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT * FROM t").fetchall() == []
    del held


async def test_writes_go_on_after_others_were_cancelled_at_any_moment(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/database", timeout_seconds=5)
    chance = random.Random(1)
    try:
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE t (a INTEGER)"))

        async def write() -> None:
            async with database.write() as connection:
                await connection.execute(text("INSERT INTO t VALUES (1)"))

        for _ in range(60):
            writing = asyncio.ensure_future(write())
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(chance.choice([0, 0.0001, 0.0005]))
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await write()
    finally:
        await database.close()
