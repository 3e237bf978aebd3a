"""The database: connections that behave the same on SQLite and PostgreSQL, and a schema that is up to date.

SQLite has one writer at a time. A transaction that reads first and writes later could find that another one got
in between and fail, so writing transactions take the write lock at their start (`BEGIN IMMEDIATE`), and those of
this process queue for it in memory, where waiting is fair and costs no polling.
"""

import asyncio
import json
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Executable,
    Row,
    bindparam,
    event,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DisconnectionError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moorage.storage import migrations, schema
from moorage.storage.database_url import name_of, read_url
from moorage.storage.failures import SILENT, DatabaseUnavailable, UnusableDatabase, explain, lasting
from moorage.storage.lease import Lease
from moorage.storage.outage import Outage
from moorage.storage.point_reads import SqlitePointReads

_MIGRATION_LOCK = 0x6D6F6F72
"""The advisory lock that keeps two controllers from migrating one PostgreSQL database at once."""

_WAL_ATTEMPTS = 100
_PROBE_SECONDS = 1.0
_PING_SECONDS = 0.5
_TRUSTED_SECONDS = 5.0
"""How long after its last use a connection to PostgreSQL is used again without being tried first."""
_WRITE = "moorage_write"
_TRUSTED_UNTIL = "moorage_trusted_until"
_write_nothing = (
    update(schema.secrets)
    .where(schema.secrets.c.name == "page-token-key")
    .values(value=schema.secrets.c.value)
)
logger = logging.getLogger(__name__)

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

    None of them takes much longer than `timeout_seconds`: then, or when the database does not answer, they raise
    `DatabaseUnavailable`, and while it is known not to answer they raise it at once (`moorage.storage.outage`).
    With a `lease`, nothing is written that another holder of the lease does not want: `write` compares its epoch.
    """

    def __init__(self, url: URL, *, timeout_seconds: float) -> None:
        self.name = name_of(url)
        self.engine = _create_engine(url, timeout_seconds)
        self.page_token_key = b""
        self.lease: Lease | None = None
        self.outage = Outage(self.name, self._probe)
        self._timeout_seconds = timeout_seconds
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()
        beside = self.engine
        self._point_reads: SqlitePointReads | None = None
        if self._is_sqlite:
            self._turn = asyncio.Lock()
            self._point_reads = SqlitePointReads(url, json_serializer=to_json)
        else:
            # The lease is renewed, and an outage ends, however many wait for a connection of the others.
            beside = _create_engine(url, timeout_seconds, pool_size=2, max_overflow=0)
        self._autocommitting = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self.engine.execution_options(**{_WRITE: True})
        self._writer_beside = beside.execution_options(**{_WRITE: True})
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    async def open(self, take_lease: "TakeLease | None") -> None:
        """Bring the schema up to date; see `open_database`."""
        if self._is_sqlite:
            # A file that cannot be opened is noticed here: a thread of aiosqlite would end with a traceback.
            await self.rows(text("SELECT 1 FROM sqlite_master LIMIT 1"))
        revision = await self._revision()
        if revision is not None and revision > migrations.HEAD:
            raise _newer(f"its schema is {revision}")
        if take_lease is not None:
            if revision is None or revision < _FIRST_REVISION_WITH_LEASES:
                await self._migrate()
                revision = migrations.HEAD
            self.lease = await take_lease(self)
        if revision != migrations.HEAD:
            await self._migrate()
        self.page_token_key = await self._page_token_key()
        self._is_open = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._connection(self.engine) as connection:
            yield connection

    async def rows(self, statement: Executable, **parameters: Any) -> Sequence[Row[Any]]:
        """All that a statement finds, which is not much and which an index leads to."""
        if self._point_reads is None:
            async with self._connection(self._autocommitting) as connection:
                return (await connection.execute(statement, parameters)).all()
        with self._explaining():
            return self._point_reads.rows(statement, parameters)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Committed, durably, when the block ends; undone when it raises. If the commit raises `DatabaseUnavailable`,
        it is not known which of the two.

        Raises:
            LeaseLost: another controller leads; nothing is written.
            LeaseUnconfirmed: another may lead.
        """
        lease = self.lease
        if lease is not None:
            lease.check()
        async with self._connection(self._writer, writes=True) as connection:
            if lease is not None and not await _has_epoch(connection, lease.epoch):
                raise lease.lose()
            yield connection

    @asynccontextmanager
    async def unfenced(self) -> AsyncIterator[AsyncConnection]:
        """`write` whoever leads: for the lease itself."""
        async with self._connection(self._writer_beside, writes=True) as connection:
            yield connection

    async def close(self) -> None:
        await self.outage.close()
        if self._point_reads is not None:
            self._point_reads.close()
        await self.engine.dispose()
        await self._writer_beside.dispose()

    @asynccontextmanager
    async def _connection(
        self,
        engine: AsyncEngine,
        *,
        writes: bool = False,
        seconds: float | None = None,
        is_probe: bool = False,
    ) -> AsyncIterator[AsyncConnection]:
        """A connection, with a transaction that writes if it is said so; what goes wrong is a `DatabaseUnavailable`.

        Until the transaction has begun, waiting ends with a time-out. After it, a connection to PostgreSQL is cut
        off, which ends whatever it waits for, at once and without a word from the server. Those to SQLite are left
        alone: once a transaction has begun it waits for nobody else, and a thread of its own waits for the disk.
        """
        is_spared = not is_probe and (writes or not self._is_sqlite)
        if is_spared:
            await self.outage.settled()
            self.outage.check()
        cut_off = _CutOff(self._timeout_seconds if seconds is None else seconds)
        with self._explaining(cut_off, is_probe=is_probe):
            async with AsyncExitStack() as stack:
                async with asyncio.timeout_at(cut_off.at):
                    if writes:
                        await stack.enter_async_context(self._turn)
                    if is_spared:
                        self.outage.check()
                    connection = await stack.enter_async_context(engine.connect())
                    if not self._is_sqlite:
                        stack.callback(cut_off.arm((await connection.get_raw_connection()).driver_connection))
                    if writes:
                        await stack.enter_async_context(connection.begin())
                yield connection

    @contextmanager
    def _explaining(self, cut_off: "_CutOff | None" = None, *, is_probe: bool = False) -> Iterator[None]:
        """Whatever says something of the database's state becomes a `DatabaseUnavailable`, and is looked into."""
        try:
            yield
        except DatabaseUnavailable:
            raise
        except Exception as error:
            trouble = SILENT if cut_off is not None and cut_off.happened else explain(error)
            if trouble is None:
                raise
            if self._is_open and not is_probe:
                if trouble.is_outage:
                    self.outage.suspect(trouble)
                else:
                    logger.warning("%s %s", self.name, trouble.text)
            raise DatabaseUnavailable(f"{self.name} {trouble.text}", advice=trouble.advice) from error

    async def _probe(self) -> None:
        """A disk that is full, or a file system that takes no writes, is noticed by a write only."""
        async with self._connection(
            self._writer_beside, writes=True, seconds=_PROBE_SECONDS, is_probe=True
        ) as connection:
            await connection.execute(_write_nothing)

    async def _revision(self) -> str | None:
        async with self.read() as connection:
            if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
                return None
            revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return revision

    async def _migrate(self) -> None:
        """However long it takes."""
        with self._explaining():
            async with self._writer.begin() as connection:
                if not self._is_sqlite:
                    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                        await connection.execute(text(f"SET LOCAL {name} = 0"))
                    await connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK}
                    )
                await connection.run_sync(_upgrade)

    async def _page_token_key(self) -> bytes:
        query = select(schema.secrets.c.value).where(schema.secrets.c.name == "page-token-key")
        async with self.read() as connection:
            return bytes.fromhex((await connection.execute(query)).scalar_one())


TakeLease = Callable[[Database], Awaitable[Lease]]


class _CutOff:
    """The moment at which a connection is given up."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.at = self._loop.time() + seconds
        self.happened = False

    def arm(self, driver_connection: Any) -> Callable[[], None]:
        """Terminate the connection then; returns what prevents it."""

        def terminate() -> None:
            self.happened = True
            driver_connection.terminate()

        return self._loop.call_at(self.at, terminate).cancel


async def open_database(
    url: str, *, timeout_seconds: float = 30.0, take_lease: TakeLease | None = None
) -> Database:
    """Connect and bring the schema up to date. Several processes may do so at once.

    `take_lease` is called before that (but once there is a table of leases): a newer version must not change the
    schema under an older one that leads.

    Raises:
        UnusableDatabase: the URL, the server or the file is not one that can be used.
        SchemaError: the database was last used by a newer version.
        DatabaseUnavailable: it does not answer now.
    """
    database = Database(read_url(url), timeout_seconds=timeout_seconds)
    try:
        await database.open(take_lease)
    except DatabaseUnavailable as error:
        await database.close()
        unusable = lasting(error)
        if unusable is None:
            raise
        raise unusable from error
    except (TypeError, InterfaceError) as error:  # of the driver, which is given what the URL says
        await database.close()
        raise UnusableDatabase(
            "The setting database_url has options after its question mark that the driver does not take: "
            f"{str(error).partition(chr(10))[0]}."
        ) from error
    except BaseException:
        await database.close()
        raise
    return database


def _newer(why: object) -> SchemaError:
    return SchemaError(
        "The database was last used by another version of Moorage, newer than this one (which knows its schema up "
        f"to {migrations.HEAD}): {why}. Start that version, or give this one another database with --database-url."
    )


def _create_engine(url: URL, timeout_seconds: float, **options: Any) -> AsyncEngine:
    options["json_serializer"] = to_json
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            url, pool_size=4, max_overflow=0, connect_args={"factory": SqliteConnection}, **options
        )
        event.listen(engine.sync_engine, "connect", partial(_set_up_sqlite, timeout_seconds))
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    engine = create_async_engine(url, **options)
    event.listen(engine.sync_engine, "connect", partial(_set_up_postgres, timeout_seconds))
    event.listen(engine.sync_engine, "checkin", _note_use)
    event.listen(engine.sync_engine, "checkout", _refuse_if_lost)
    return engine


class SqliteConnection(sqlite3.Connection):
    """Whose transaction ends with it. SQLite itself keeps a connection, with its lock, until the last cursor is gone:
    that of a statement which was cancelled may be held by a traceback."""

    def close(self) -> None:
        with suppress(sqlite3.Error):  # there is none
            self.rollback()
        super().close()


_SERVER_SIDE = """
SELECT set_config(setting.name, wanted.value, false)
FROM (VALUES {}) AS wanted(name, value) JOIN pg_settings AS setting ON setting.name = wanted.name
"""


def _set_up_postgres(timeout_seconds: float, connection: Any, _record: Any) -> None:
    """What the server does about statements that we have given up, and about connections whose other end is gone: it
    must not hold their locks for hours. A setting that an old server does not have is left out."""
    milliseconds = int(timeout_seconds * 1000)
    wanted = {
        "statement_timeout": milliseconds
        * 9
        // 10,  # before we cut the connection off, which costs a new one
        "lock_timeout": milliseconds * 8 // 10,
        "idle_in_transaction_session_timeout": milliseconds + 1000,
        "tcp_keepalives_idle": 10,  # seconds, as the next
        "tcp_keepalives_interval": 3,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    values = ", ".join(f"('{name}', '{value}')" for name, value in wanted.items())
    connection.run_async(lambda driver: driver.execute(_SERVER_SIDE.format(values)))


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_TRUSTED_UNTIL] = time.monotonic() + _TRUSTED_SECONDS


def _refuse_if_lost(connection: Any, record: Any, _proxy: Any) -> None:
    """A connection that the server has closed is noticed before it is used, and another one made. To ask the server
    each time, as the pool's own ping does, takes longer than most statements."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server has closed the connection")
    if time.monotonic() >= record.info.get(_TRUSTED_UNTIL, math.inf):
        try:
            connection.run_async(_ping)
        except Exception as error:
            raise DisconnectionError("the connection is lost") from error


async def _ping(driver_connection: Any) -> None:
    cut_off = _CutOff(_PING_SECONDS)
    cancel = cut_off.arm(driver_connection)
    try:
        await driver_connection.fetchrow(";")
    finally:
        cancel()


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


def _set_up_sqlite(timeout_seconds: float, connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(timeout_seconds * 800)}")
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
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or attempt == _WAL_ATTEMPTS - 1:
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
