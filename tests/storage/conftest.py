"""Every kind of store, empty."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.storage.base import ResourceStore
from moorage.storage.database import open_database
from moorage.storage.memory import MemoryResourceStore
from moorage.storage.resources import SqlResourceStore


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def store(store_url: str | None) -> AsyncIterator[ResourceStore]:
    if store_url is None:
        yield MemoryResourceStore()
        return
    database = await open_database(store_url)
    yield SqlResourceStore(database)
    await database.close()
