"""A new SQLite database is made in a process of its own, which ends: Alembic, and what it brings along, would stay in
memory, 11 MB that are not needed again."""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from moorage.storage.database import open_database
from moorage.storage.database_url import read_url
from moorage.storage.failures import UnusableDatabase


def make_apart(url: str) -> None:
    """Make the SQLite database of the URL, if there is none. Whatever fails is told when the database is opened,
    which makes one as well.

    Must be called while the process has one thread.
    """
    try:
        parsed = read_url(url)
    except UnusableDatabase:
        return
    if parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").exists():
        return
    child = os.fork()
    if not child:
        logging.disable()
        with suppress(BaseException):
            asyncio.run(_make(url))
        os._exit(os.EX_OK)
    os.waitpid(child, 0)


async def _make(url: str) -> None:
    await (await open_database(url)).close()
