"""The setting `database_url`: what may stand there, and how the database is called without its password."""

from importlib.util import find_spec

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from moorage.storage.failures import UnusableDatabase

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_EXAMPLES = "Examples: postgresql://user:password@host:5432/name, sqlite:////path/of/a/file.db."


def read_url(text: str) -> URL:
    """The URL with the driver that this program has for its database.

    The text is not repeated in messages: it may hold a password, even where none is expected.

    Raises:
        UnusableDatabase: it is no URL, or of a database that cannot be used.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UnusableDatabase(
            f"The setting database_url is not the URL of a database. {_EXAMPLES}"
        ) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise UnusableDatabase(
            f"The setting database_url begins with {url.drivername}://, which this server does not know: the state "
            f"is kept in PostgreSQL (by asyncpg) or SQLite (by aiosqlite). {_EXAMPLES}"
        )
    url = url.set(drivername=driver)
    if driver == "sqlite+aiosqlite" and url.database in (None, "", ":memory:"):
        raise UnusableDatabase(f"The setting database_url names no file for SQLite. {_EXAMPLES}")
    if driver == "postgresql+asyncpg":
        if find_spec("asyncpg") is None:
            raise UnusableDatabase(
                "The database is PostgreSQL, and its driver asyncpg is not installed: "
                "pip install 'moorage[postgres]'."
            )
        mode = url.query.get("sslmode")
        if mode is not None:  # libpq's name of it, which URLs usually have
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def name_of(url: URL) -> str:
    """The database in a sentence, without user and password."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite database {url.database}"
    host = url.host or url.query.get("host") or "localhost"
    host = host if isinstance(host, str) else ",".join(host)
    return f"the database {url.database or ''} at {host}:{url.port or url.query.get('port') or 5432}"
