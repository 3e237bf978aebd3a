"""A gateway for each test, on the event loop that it runs on in production, and a log that must stay silent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from tests.gateway.harness import Gateway, start_gateway


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def silent_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients and containers do, nothing is logged: what escapes a callback lands in asyncio's log."""
    yield
    loud = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not loud, [record.getMessage() for record in loud]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a controller or an S3 to restart does not wait long."""
    monkeypatch.setattr("moorage.gateway.relay._PATIENCE_SECONDS", 0.2)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with start_gateway() as gateway:
        yield gateway
