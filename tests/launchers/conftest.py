from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from moorage.launchers.process import ProcessLauncher

from .containers import Mailbox, process_launcher


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    """A launcher of real processes that pings ten times as often as usual."""
    launcher = process_launcher(tmp_path, ping_interval_seconds=0.2, ping_timeout_seconds=2.0)
    yield launcher
    await launcher.close(hurry=True)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    mailbox = Mailbox(tmp_path / "mailbox")
    yield mailbox
    mailbox.close()
