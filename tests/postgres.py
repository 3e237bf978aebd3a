"""A PostgreSQL for tests: one that is given (MOORAGE_TEST_POSTGRES_URL), or one started for the session.

Tests that break the server have one of their own.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine


class PostgresServer:
    """A server in a folder of its own, that listens on a Unix socket there."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(folder, self._user)
        # Names must sort the same whatever the server's locale is, so test with one that has its own ideas.
        collation = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", *collation)
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={folder}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def is_running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def freeze(self) -> None:
        """Stop every process of it where it is: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    @contextmanager
    def password_of(self, user: str, password: str) -> Iterator[None]:
        """A user that must give a password."""
        rules = self._data / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"local all {user} scram-sha-256\n{before}")
        self._run("pg_ctl", "reload")
        asyncio.run(_execute(self.url, f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'"))
        try:
            yield
        finally:
            asyncio.run(_execute(self.url, f"DROP ROLE {user}"))
            rules.write_text(before)
            self._run("pg_ctl", "reload")

    def _signal(self, number: int) -> None:
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, number)  # first, so that it starts no more of them
        for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
            with suppress(ProcessLookupError):  # some end when they are let go on
                os.kill(int(child), number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), "-D", str(self._data), *arguments],
            check=True,
            cwd=self._folder,
            user=self._user,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def new_postgres_server() -> Iterator[PostgresServer]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        _absent("no PostgreSQL: set MOORAGE_TEST_POSTGRES_URL or install Debian's postgresql")
    folder = Path(tempfile.mkdtemp(prefix="moorage-postgres-"))
    try:
        server = PostgresServer(programs[-1].parent, folder)
        server.start()
        try:
            yield server
        finally:
            if server.is_running():
                server.thaw()
                server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server on which databases can be created."""
    given = os.environ.get("MOORAGE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with new_postgres_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def breakable_postgres_server() -> Iterator[PostgresServer]:
    """A server that tests may stop and freeze; they leave it running."""
    with new_postgres_server() as server:
        yield server


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty database."""
    pytest.importorskip("asyncpg")
    yield from _new_database(postgres_server)


@pytest.fixture
def breakable_postgres_url(breakable_postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database on the server that may be broken."""
    pytest.importorskip("asyncpg")
    yield from _new_database(breakable_postgres_server.url)


def _new_database(server: str) -> Iterator[str]:
    name = f"moorage_{uuid.uuid4().hex}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
