"""What all tests may use: a running server, shared by those that do not disturb it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import (
    breakable_postgres_server,
    breakable_postgres_url,
    postgres_server,
    postgres_url,
)
from tests.servers import MoorageServer

# A run in the background of a script begins with SIGINT ignored, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = [
    "breakable_postgres_server",
    "breakable_postgres_url",
    "new_server",
    "postgres_server",
    "postgres_url",
    "server",
]

# How long an example takes is the machine's mood, not the code's correctness.
settings.register_profile(
    "any machine", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageServer]:
    """One server for the whole session; tests use endpoints of their own names and leave it running."""
    running = MoorageServer(tmp_path_factory.mktemp("shared") / "data").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., MoorageServer]]:
    """Makes servers of a test's own, to be stopped, killed and started again."""
    made: list[MoorageServer] = []

    def make(name: str = "data", **options: object) -> MoorageServer:
        made.append(MoorageServer(tmp_path / name, **options))  # type: ignore[arg-type]
        return made[-1].start()

    yield make
    for each in made:
        each.ensure_stopped()
