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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, event, inspect, literal, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moorage.storage import migrations, schema
from moorage.storage.failures import UnusableDatabase
from moorage.storage.lease import Lease
from moorage.storage.point_reads import PointReads, PostgresPointReads, SqlitePointReads

_MIGRATION_LOCK = 0x6D6F6F72
"""The advisory lock that keeps two controllers from migrating one PostgreSQL database at once."""

_BUSY_TIMEOUT_MS = 30_000
_WAL_ATTEMPTS = 200
_TRUSTED_SECONDS = 5.0
"""How long after its last use a connection to PostgreSQL is used again without being tried first."""
_WRITE = "moorage_write"
_TRUSTED_UNTIL = "moorage_trusted_until"

_FIRST_REVISION_WITH_LEASES = "0005"
_SQLITE_FENCE = "SELECT 1 FROM leases WHERE name = 'controller' AND epoch = ?"
_postgres_fence = (
    select(literal(1))
    .where(schema.leases.c.name == "controller", schema.leases.c.epoch == bindparam("epoch"))
    .with_for_update(read=True, key_share=True)
)
"""Finds a row while the lease has this epoch, which nobody changes before the transaction ends; in SQLite a
transaction that writes has the whole file anyway."""


class SchemaError(UnusableDatabase):
    """The database has a schema that this version does not know."""


class Database:
    """A pool of connections. `read` and `write` give one with a transaction that ends with the block; for `rows`, of
    the control plane's reads, see `moorage.storage.point_reads`.

    With a `lease`, nothing is written that another holder of the lease does not want: `write` compares its epoch.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.page_token_key = b""
        self.lease: Lease | None = None
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
        """Committed, durably, when the block ends; undone when it raises.

        Raises:
            LeaseLost: another controller leads; nothing is written.
            LeaseUnconfirmed: another may lead.
        """
        lease = self.lease
        if lease is not None:
            lease.check()
        async with self.unfenced() as connection:
            if lease is not None and not await _has_epoch(connection, lease.epoch):
                raise lease.lose()
            yield connection

    @asynccontextmanager
    async def unfenced(self) -> AsyncIterator[AsyncConnection]:
        """`write` whoever leads: for the lease itself."""
        async with self._turn, self._writer.begin() as connection:
            yield connection

    async def close(self) -> None:
        self._point_reads.close()
        await self.engine.dispose()


async def open_database(
    url: str, *, take_lease: Callable[[Database], Awaitable[Lease]] | None = None
) -> Database:
    """Connect and bring the schema up to date. Several processes may do so at once.

    `take_lease` is called before that (but once there is a table of leases): a newer version must not change the
    schema under an older one that leads.

    Raises:
        SchemaError: the database was last used by a newer version.
    """
    database = Database(_create_engine(url))
    try:
        revision = await _revision(database.engine)
        if take_lease is not None:
            if revision is None or revision < _FIRST_REVISION_WITH_LEASES:
                await _migrate(database.engine)
            elif revision > migrations.HEAD:
                raise _newer(f"its schema is {revision}")
            database.lease = await take_lease(database)
        if revision != migrations.HEAD:
            await _migrate(database.engine)
        database.page_token_key = await _page_token_key(database.engine)
    except BaseException:
        await database.close()
        raise
    return database


def _newer(why: object) -> SchemaError:
    return SchemaError(
        "The database was last used by another version of Moorage, newer than this one (which knows its schema up "
        f"to {migrations.HEAD}): {why}. Start that version, or give this one another database with --database-url."
    )


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


async def _has_epoch(connection: AsyncConnection, epoch: int) -> bool:
    """Whether the lease has this epoch, and keeps it until the transaction ends."""
    if connection.dialect.name == "sqlite":
        return bool(await connection.run_sync(_ask_sqlite, _SQLITE_FENCE, epoch))
    return bool(await connection.scalar(_postgres_fence, {"epoch": epoch}))


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
    """Straight to the driver: its thread is asked once and not three times, which is a third of a short write."""
    writes = connection.get_execution_options().get(_WRITE, False)
    _ask_sqlite(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


def _ask_sqlite(connection: Connection, statement: str, *parameters: object) -> Sequence[Sequence[Any]]:
    """Must run where SQLAlchemy runs its synchronous part."""
    adapter: Any = connection.connection.dbapi_connection
    rows: Sequence[Sequence[Any]] = adapter.run_async(
        lambda driver: driver.execute_fetchall(statement, parameters)
    )
    return rows


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
        raise _newer(error) from error


async def _page_token_key(engine: AsyncEngine) -> bytes:
    query = select(schema.secrets.c.value).where(schema.secrets.c.name == "page-token-key")
    async with engine.connect() as connection:
        return bytes.fromhex((await connection.execute(query)).scalar_one())
