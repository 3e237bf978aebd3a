"""A PostgreSQL for tests: one that is given (MOORAGE_TEST_POSTGRES_URL), or one started for the session."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server on which databases can be created."""
    given = os.environ.get("MOORAGE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        _absent("no PostgreSQL: set MOORAGE_TEST_POSTGRES_URL or install Debian's postgresql")
    folder = Path(tempfile.mkdtemp(prefix="moorage-postgres-"))
    try:
        yield from _run_postgres(programs[-1].parent, folder)
    finally:
        shutil.rmtree(folder)


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _run_postgres(programs: Path, folder: Path) -> Iterator[str]:
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, user=user, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    # Names must sort the same whatever the server's locale is, so test with one that has its own ideas.
    collation = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
    run(str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", *collation)
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    run(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+asyncpg://postgres@/postgres?host={folder}"
    finally:
        run(str(programs / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty database."""
    pytest.importorskip("asyncpg")
    name = f"moorage_{uuid.uuid4().hex}"
    asyncio.run(_execute(postgres_server, f"CREATE DATABASE {name}"))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
