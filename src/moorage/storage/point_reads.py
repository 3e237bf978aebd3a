"""Reads of few rows that an index finds: what most answers of the control plane are made of.

SQLite needs some ten microseconds for one, and handing it to a thread and back costs twenty times that, so it is read
where it is asked for, by a connection of its own. In WAL mode a reader waits for nobody: those that could make it
wait would have to be the only ones with the file open. PostgreSQL is sent the one statement, with no transaction
around it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Executable, Row, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import StaticPool


class PointReads(Protocol):
    """Runs one statement and gives all that it finds: everything that was committed before is seen."""

    async def rows(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[Row[Any]]: ...

    def close(self) -> None: ...


class SqlitePointReads:
    """For one thread only."""

    def __init__(self, url: URL, **options: Any) -> None:
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            isolation_level="AUTOCOMMIT",
            poolclass=StaticPool,
            pool_reset_on_return=None,
            **options,
        )
        event.listen(self._engine, "connect", _forbid_writes)

    async def rows(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(statement, parameters).all()

    def close(self) -> None:
        self._engine.dispose()


def _forbid_writes(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON").close()


class PostgresPointReads:
    """On the pool of an engine, which the caller disposes of."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def rows(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        async with self._engine.connect() as connection:
            rows: Sequence[Row[Any]] = (await connection.execute(statement, parameters)).all()
        return rows

    def close(self) -> None:
        """The pool is another's."""
