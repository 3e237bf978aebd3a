"""Starts that cannot succeed: one sentence that says what is wrong and what to do, status 1, and no waiting."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.postgres import PostgresServer
from tests.servers import ISOLATION, MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
SECONDS = 10.0
"""A start on a quiet machine ends within one or two; one that is waited for or tried again takes 60."""


@dataclass
class Start:
    status: int
    seconds: float
    output: str
    """Of all processes."""

    @property
    def sentence(self) -> str:
        """What the command says itself."""
        said = [line for line in self.output.splitlines() if line.startswith("moorage: ")]
        assert len(said) == 1, self.output
        return said[0].removeprefix("moorage: ")


def command(data_dir: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "moorage", "serve", "--port", "0"),
        *("--data-dir", str(data_dir), *arguments),
    ]


def environment(**settings: object) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOORAGE_"))}
    settings = {"container_isolation": ISOLATION, **settings}
    return ours | {f"MOORAGE_{key.upper()}": str(value) for key, value in settings.items()}


def start(data_dir: Path, *arguments: str, within: tuple[str, ...] = (), **settings: object) -> Start:
    """Start a server that is expected to end by itself. `within`: a command that runs it."""
    began = time.monotonic()
    done = subprocess.run(
        [*within, *command(data_dir, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**settings),
        cwd="/",
        timeout=60,
        check=False,
    )
    return Start(done.returncode, time.monotonic() - began, done.stdout)


def refused(data_dir: Path, *arguments: str, within: tuple[str, ...] = (), **settings: object) -> str:
    """The sentence with which a start ends."""
    result = start(data_dir, *arguments, within=within, **settings)
    assert result.status == 1, result.output
    assert "Traceback" not in result.output
    assert "started again" not in result.output
    assert result.seconds < SECONDS, result.output
    return result.sentence


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


# --- The URL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://user:secret@host:port/name", "The setting database_url is not the URL of a database"),
        ("postgresql://user:secret@127.0.0.1:1/name?colour=red", "colour"),
        ("postgresql://user:secret@no-such-host.invalid/name", "has a host whose name is not known"),
    ],
)
def test_urls_of_no_database(data_dir: Path, url: str, words: str) -> None:
    if url.startswith("postgresql://"):
        pytest.importorskip("asyncpg")
    sentence = refused(data_dir, "--database-url", url)
    assert words in sentence
    assert "secret" not in sentence


# --- PostgreSQL ----------------------------------------------------------------------------------------


def test_postgresql_needs_no_driver_in_its_url(postgres_url: str, new_server: NewServer) -> None:
    url = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    server = new_server(arguments=("--database-url", url))
    assert server.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_users_and_databases_that_postgresql_does_not_know(data_dir: Path, postgres_url: str) -> None:
    url = make_url(postgres_url)
    nobody = url.set(username="nobody", password="secret").render_as_string(hide_password=False)
    sentence = refused(data_dir, "--database-url", nobody)
    assert sentence.startswith(f"The database {url.database} at ")
    assert "refuses the user" in sentence
    assert "secret" not in sentence
    nowhere = url.set(database="nowhere").render_as_string(hide_password=False)
    assert "CREATE DATABASE" in refused(data_dir, "--database-url", nowhere)


def test_a_wrong_password(data_dir: Path, password_url: str) -> None:
    wrong = make_url(password_url).set(password="secret").render_as_string(hide_password=False)
    result = start(data_dir, "--database-url", wrong)
    assert result.status == 1
    assert "refuses the user's password" in result.sentence
    assert "secret" not in result.output
    assert result.seconds < SECONDS


@pytest.fixture
def password_url(breakable_postgres_server: PostgresServer, breakable_postgres_url: str) -> Iterator[str]:
    """A database whose user has a password."""
    with breakable_postgres_server.password_of("keeper", "right"):
        yield (
            make_url(breakable_postgres_url)
            .set(username="keeper", password="right")
            .render_as_string(hide_password=False)
        )


def test_a_database_that_is_not_there_yet_is_waited_for(
    breakable_postgres_server: PostgresServer, breakable_postgres_url: str, tmp_path: Path
) -> None:
    breakable_postgres_server.stop()
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command(tmp_path / "data", "--database-url", breakable_postgres_url),
            stdout=file,
            stderr=file,
            env=environment(),
        )
    try:
        eventually(lambda: log.read_text().count("which is waited for") >= 2, what=log.read_text)
        breakable_postgres_server.start()
        eventually(lambda: "Moorage is ready at" in log.read_text(), what=log.read_text)
        assert "Traceback" not in log.read_text()
        assert "started again" not in log.read_text()
    finally:
        if not breakable_postgres_server.is_running():
            breakable_postgres_server.start()
        process.terminate()
        process.wait(30)


# --- SQLite and its disk -------------------------------------------------------------------------------


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    yield
    path.write_bytes(before)


def test_files_that_are_damaged_lost_or_of_a_newer_version(data_dir: Path, new_server: NewServer) -> None:
    server = new_server()
    server.client("iam").create_user(UserName="somebody")
    server.client("iam").create_access_key(UserName="somebody")
    assert server.stop() == 0

    database = data_dir / "moorage.db"
    for log in data_dir.glob("moorage.db-*"):
        log.unlink()
    whole = database.read_bytes()
    with changed(database, b"this is no database, but a text of some length " * 100):
        assert f"The SQLite database {database} is damaged" in refused(data_dir)
    with changed(database, whole[:4096] + b"\xff" * (len(whole) - 4096)):
        assert f"The SQLite database {database} is damaged" in refused(data_dir)

    connection = sqlite3.connect(database)
    revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    assert "last used by another version of Moorage, newer than this one" in refused(data_dir)
    connection.execute("UPDATE alembic_version SET version_num = ?", revision)
    connection.commit()
    connection.close()

    key = data_dir / "secret-key"
    with changed(key, b"another-key-of-the-right-length\n"):
        sentence = refused(data_dir)
        assert f"The secret key in the file {key} is not the one" in sentence
        assert "another-key" not in sentence
    with changed(key, b"short"):
        assert f"{key} holds no key" in refused(data_dir)
    kept = key.read_bytes()
    key.unlink()
    assert f"The secret key is lost: there is no file {key}" in refused(data_dir)
    assert not key.exists()
    assert "in the setting secret_key is not the one" in refused(data_dir, secret_key="x" * 32)
    key.write_bytes(kept)

    credentials = data_dir / "credentials"
    with changed(credentials, b"\x00\xff\xfe no credentials"):
        assert str(credentials) in refused(data_dir)
    with changed(credentials, b"[default]\naws_access_key_id = A\n"):
        assert f"{credentials} has no 'aws_secret_access_key'" in refused(data_dir)

    assert server.start().stop() == 0, "nothing was changed by all that"


def test_a_sqlite_file_where_nothing_can_be_written(data_dir: Path, tmp_path: Path) -> None:
    sentence = refused(data_dir, "--database-url", f"sqlite:///{tmp_path}/nowhere/moorage.db")
    assert f"The SQLite database {tmp_path}/nowhere/moorage.db cannot be opened" in sentence


def in_a_mount(mount: str) -> tuple[str, ...]:
    """What runs a command in a mount namespace of its own, after another mount there."""
    tool = shutil.which("unshare")
    probe = [*((tool or "false"), "--mount", "true")]
    if os.geteuid() != 0 or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("needs root and mount namespaces")
        pytest.skip("needs root and mount namespaces")
    return (*(tool or "", "--mount", "sh", "-c"), f'{mount} && exec "$@"', "sh")


def test_a_file_system_that_is_read_only(data_dir: Path, tmp_path: Path) -> None:
    where = tmp_path / "disk"
    where.mkdir()
    within = in_a_mount(f"mount -t tmpfs -o ro none {where}")
    sentence = refused(data_dir, "--database-url", f"sqlite:///{where}/moorage.db", within=within)
    assert f"The SQLite database {where}/moorage.db cannot be opened" in sentence
    sentence = refused(where / "data", within=within)
    assert f"Cannot read or write {where}/data: Read-only file system" in sentence


def test_a_disk_that_is_full(data_dir: Path, tmp_path: Path) -> None:
    where = tmp_path / "disk"
    where.mkdir()
    within = in_a_mount(f"mount -t tmpfs -o size=64k none {where}")
    sentence = refused(data_dir, "--database-url", f"sqlite:///{where}/moorage.db", within=within)
    assert f"The SQLite database {where}/moorage.db has no space left" in sentence
    full = in_a_mount(f"mount -t tmpfs -o size=64k none {where} && head -c 1M /dev/zero > {where}/x; true")
    sentence = refused(where / "data", within=full)
    assert "No space left on device. Free some space there" in sentence


# --- The rest ------------------------------------------------------------------------------------------


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file is no directory" in refused(tmp_path / "file")
    assert "Not a directory" in refused(tmp_path / "file" / "data")


def test_an_s3_program_that_is_missing(data_dir: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python"
    python.symlink_to(sys.executable)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    done = subprocess.run(
        [str(python), "-m", "moorage.runtime.serve"],
        env={
            "PATH": str(programs),
            "PYTHONPATH": os.pathsep.join([*packages, str(Path(__file__).parents[2] / "src")]),
            "MOORAGE_SETTINGS": f'{{"data_dir": "{data_dir}", "port": 0, "container_isolation": "none"}}',
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"moorage: The program of the embedded S3, moorage-s3, is neither at .* nor in PATH", done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_port_that_another_program_has(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = refused(data_dir, "--port", str(port))
    assert (
        f"Cannot listen on 127.0.0.1:{port}: Address already in use. Another program has the port" in sentence
    )


def test_an_address_of_another_machine(data_dir: Path) -> None:
    assert "Give an address of this machine with --host" in refused(data_dir, "--host", "192.0.2.1")


def test_tls_files_that_cannot_be_used(data_dir: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    settings: Mapping[str, object] = {"tls_certificate": missing, "tls_key": missing}
    assert f"The TLS certificate {missing}" in refused(data_dir, **settings)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-subj", "/CN=x"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    sentence = refused(data_dir, tls_certificate=certificate, tls_key=key)
    assert "have no password" in sentence
