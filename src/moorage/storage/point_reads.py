"""Reads of few rows that an index finds: what most answers of the control plane are made of.

SQLite needs some ten microseconds for one, and handing it to a thread and back costs twenty times that, so it is read
where it is asked for, by a connection of its own. In WAL mode a reader waits for nobody: those that could make it
wait would have to be the only ones with the file open.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable, Row, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

_LONGEST_WAIT_SECONDS = 0.5


class SqlitePointReads:
    """For one thread only."""

    def __init__(self, url: URL, **options: Any) -> None:
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            isolation_level="AUTOCOMMIT",
            poolclass=StaticPool,
            pool_reset_on_return=None,
            connect_args={"timeout": _LONGEST_WAIT_SECONDS},
            **options,
        )
        event.listen(self._engine, "connect", _forbid_writes)

    def rows(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(statement, parameters).all()

    def close(self) -> None:
        self._engine.dispose()


def _forbid_writes(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON").close()
