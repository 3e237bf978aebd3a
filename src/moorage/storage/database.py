"""The database: connections that behave the same on SQLite and PostgreSQL, and a schema that is up to date.

SQLite has one writer at a time. A transaction that reads first and writes later could find that another one got
in between and fail, so writing transactions take the write lock at their start (`BEGIN IMMEDIATE`), and those of
this process queue for it in memory, where waiting is fair and costs no polling.
"""

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Row, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moorage.storage import migrations, schema
from moorage.storage.point_reads import PointReads, PostgresPointReads, SqlitePointReads

_MIGRATION_LOCK = 0x6D6F6F72
"""The advisory lock that keeps two controllers from migrating one PostgreSQL database at once."""

_BUSY_TIMEOUT_MS = 30_000
_WAL_ATTEMPTS = 200
_TRUSTED_SECONDS = 5.0
"""How long after its last use a connection to PostgreSQL is used again without being tried first."""
_WRITE = "moorage_write"
_TRUSTED_UNTIL = "moorage_trusted_until"


class SchemaError(Exception):
    """The database has a schema that this version does not know."""


class Database:
    """A pool of connections. `read` and `write` give one with a transaction that ends with the block; for `rows`, of
    the control plane's reads, see `moorage.storage.point_reads`."""

    def __init__(self, engine: AsyncEngine, *, page_token_key: bytes) -> None:
        self.engine = engine
        self.page_token_key = page_token_key
        self._writer = engine.execution_options(**{_WRITE: True})
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()
        self._point_reads: PointReads
        if engine.dialect.name == "sqlite":
            self._turn = asyncio.Lock()
            self._point_reads = SqlitePointReads(engine.url, json_serializer=to_json)
        else:
            self._point_reads = PostgresPointReads(engine)

    def __repr__(self) -> str:
        return f"<Database {self.engine.url!r}>"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.connect() as connection:
            yield connection

    async def rows(self, statement: Executable, **parameters: Any) -> Sequence[Row[Any]]:
        """All that a statement finds, which is not much and which an index leads to."""
        return await self._point_reads.rows(statement, parameters)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Committed, durably, when the block ends; undone when it raises."""
        async with self._turn, self._writer.begin() as connection:
            yield connection

    async def close(self) -> None:
        self._point_reads.close()
        await self.engine.dispose()


async def open_database(url: str) -> Database:
    """Connect and bring the schema up to date. Several processes may do so at once.

    Raises:
        SchemaError: the database was last used by a newer version.
    """
    engine = _create_engine(url)
    try:
        if await _revision(engine) != migrations.HEAD:
            await _migrate(engine)
        key = await _page_token_key(engine)
    except BaseException:
        await engine.dispose()
        raise
    return Database(engine, page_token_key=key)


def _create_engine(url: str) -> AsyncEngine:
    options: dict[str, Any] = {"json_serializer": to_json}
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_async_engine(url, pool_size=4, max_overflow=0, **options)
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    engine = create_async_engine(url, **options)
    event.listen(engine.sync_engine, "checkin", _note_use)
    event.listen(engine.sync_engine, "checkout", _refuse_if_lost)
    return engine


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_TRUSTED_UNTIL] = time.monotonic() + _TRUSTED_SECONDS


def _refuse_if_lost(connection: Any, record: Any, _proxy: Any) -> None:
    """A connection that the server has closed is noticed before it is used, and another one made. To ask the server
    each time, as the pool's own ping does, takes longer than most statements."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server has closed the connection")
    if time.monotonic() >= record.info.get(_TRUSTED_UNTIL, math.inf):
        try:
            connection.ping()
        except connection.dbapi.Error as error:
            raise DisconnectionError("the connection is lost") from error


def to_json(value: object) -> str:
    """JSON as it is stored: times become ISO 8601."""
    return json.dumps(value, default=_time_to_json, separators=(",", ":"))


def _time_to_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """For good, by the first connection to a new file. Others that try at that moment are not made to wait by
    SQLite, whatever `busy_timeout` says, but refused; it is over at once."""
    for attempt in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


async def _revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return None
        revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


async def _migrate(engine: AsyncEngine) -> None:
    async with engine.execution_options(**{_WRITE: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(
            f"the database was last used by another version of Moorage, newer than this one "
            f"(which knows its schema up to {migrations.HEAD}): {error}"
        ) from error


async def _page_token_key(engine: AsyncEngine) -> bytes:
    query = select(schema.secrets.c.value).where(schema.secrets.c.name == "page-token-key")
    async with engine.connect() as connection:
        return bytes.fromhex((await connection.execute(query)).scalar_one())
