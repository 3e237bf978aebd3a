"""What can be wrong with a database, told apart: the rule by which an exception of a driver becomes words."""

import errno
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class DatabaseUnavailable(Exception):
    """The database does not answer now, or not in time; another try may succeed. Nothing was written, or it is not
    known whether it was. `advice` is what an operator can do if it is not over soon."""

    def __init__(self, text: str, *, advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


class UnusableDatabase(Exception):
    """This database cannot be used as it is, however often it is tried. The text is for the operator: what, why, and
    what to do."""


def lasting(error: DatabaseUnavailable) -> UnusableDatabase | None:
    """What this is for a start; None if it helps to wait."""
    if not error.advice:
        return None
    text = str(error)
    return UnusableDatabase(f"{text[:1].upper()}{text[1:]}. {error.advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """`text` ends a sentence that begins with the database. `advice` is what an operator can do, if waiting does not
    help a start; `is_outage`: nothing else would be answered either."""

    text: str
    advice: str = ""
    is_outage: bool = True


_STARTING = Trouble(text="is starting up or shutting down")
_CLOSED = Trouble(text="closed the connection")
_FREE_SPACE = "Free some space there."

_BY_SQLSTATE = {
    "28P01": Trouble(
        text="refuses the user's password",
        advice="Give the right one in the setting database_url.",
    ),
    "28": Trouble(
        text="refuses the user",
        advice="Give another in the setting database_url, or let this one in with the server's pg_hba.conf.",
    ),
    "3D000": Trouble(
        text="does not exist, though its server answers",
        advice="Create it (CREATE DATABASE), or name another in the setting database_url.",
    ),
    "42501": Trouble(
        text="does not let the user create or read the tables",
        advice="Make the user the database's owner, or grant it CREATE and USAGE on the schema public.",
        is_outage=False,
    ),
    "57P": _STARTING,
    "08": _CLOSED,
    "53100": Trouble(text="has no space left on its disk", advice=_FREE_SPACE),
    "53": Trouble(text="has no memory or connections left"),
    "57014": Trouble(text="did not finish a statement in time", is_outage=False),
    "55P03": Trouble(text="did not get a lock in time", is_outage=False),
    "25P03": Trouble(text="ended a transaction that did nothing for too long", is_outage=False),
    "25006": Trouble(text="is a standby that takes no writes"),
    "40": Trouble(text="undid a transaction in favour of another", is_outage=False),
    "58": Trouble(text="cannot read or write its files"),
    "XX001": Trouble(text="is damaged", advice="Restore it from a backup."),
    "XX002": Trouble(text="is damaged", advice="Restore it from a backup."),
}
"""By the longest beginning of the state that PostgreSQL gives: https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_IN_THE_WAY = "Its directory must exist, and the server's user must be able to write there."
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_BUSY: Trouble(text="is locked by another process"),
    sqlite3.SQLITE_LOCKED: Trouble(text="is locked by another process"),
    sqlite3.SQLITE_FULL: Trouble(text="has no space left on its disk", advice=_FREE_SPACE),
    sqlite3.SQLITE_IOERR: Trouble(
        text="cannot be read or written", advice="Look at its disk, and its free space."
    ),
    sqlite3.SQLITE_CANTOPEN: Trouble(text="cannot be opened", advice=_IN_THE_WAY),
    sqlite3.SQLITE_READONLY: Trouble(text="cannot be written", advice=_IN_THE_WAY),
    sqlite3.SQLITE_PERM: Trouble(text="cannot be opened", advice=_IN_THE_WAY),
    sqlite3.SQLITE_NOTADB: Trouble(
        text="is damaged, or no SQLite database at all",
        advice="Restore it from a backup, or move it away to begin with an empty one.",
    ),
    sqlite3.SQLITE_CORRUPT: Trouble(
        text="is damaged",
        advice="Restore it from a backup; the command .recover of the program sqlite3 saves what can be read.",
    ),
}
"""By the primary result code: https://www.sqlite.org/rescode.html"""

_UNKNOWN_HOST = Trouble(
    text="has a host whose name is not known",
    advice="Look at the name in the setting database_url.",
)
_BY_ERRNO = {
    errno.ECONNREFUSED: Trouble(text="refuses connections"),
    errno.ENOENT: Trouble(text="does not listen on its socket"),
    errno.ETIMEDOUT: Trouble(text="does not answer"),
    errno.ECONNRESET: _CLOSED,
    errno.EPIPE: _CLOSED,
}
_UNREACHABLE = Trouble(text="cannot be reached")
_NO_TLS = Trouble(
    text="and this server do not agree on TLS",
    advice="Look at ssl (or sslmode) in the setting database_url, and at the certificates of both.",
)
SILENT = Trouble(text="does not answer in time")
_TOO_MANY = Trouble(text="has been asked more than it answers in time", is_outage=False)


def explain(error: BaseException) -> Trouble | None:
    """What an exception of SQLAlchemy, a driver or a socket says of the database; None if it is not about its state,
    such as a constraint that is broken or a statement that is wrong."""
    for cause in _causes(error):
        trouble = _explain_one(cause)
        if trouble is not None:
            return trouble
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return _CLOSED
    return None


def _explain_one(error: BaseException) -> Trouble | None:
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return next((_BY_SQLSTATE[state[:n]] for n in (5, 3, 2) if state[:n] in _BY_SQLSTATE), None)
    if isinstance(error, sqlite3.Error):
        return _BY_SQLITE_CODE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(error, PoolTimeout):
        return _TOO_MANY
    if isinstance(error, socket.gaierror):
        return _UNKNOWN_HOST if error.errno != socket.EAI_AGAIN else Trouble(text="cannot be looked up now")
    if isinstance(error, ssl.SSLError) or (type(error) is ConnectionError and "SSL" in str(error)):
        return _NO_TLS
    if isinstance(error, TimeoutError):
        return SILENT
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, _UNREACHABLE)
    # What asyncpg finds out by itself has no state.
    return _CLOSED if type(error).__name__ == "InterfaceError" and "closed" in str(error) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """From the driver's own exception outwards."""
    if isinstance(error, SQLAlchemyError):
        original = getattr(error, "orig", None)
        if original is not None:
            yield from _causes(original)
    if error.__cause__ is not None and error.__cause__ is not getattr(error, "orig", None):
        yield from _causes(error.__cause__)
    yield error
