"""The server's own child processes, for real."""

import asyncio
import logging
import os
import resource
import signal
import sys

import pytest

from moorage.runtime import children
from moorage.runtime.children import Child


async def test_one_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A shortage on the machine passes; a gateway that nobody starts again would be gone for good."""
    monkeypatch.setattr(children, "_BACKOFF_SECONDS", (0.02,))
    lines: asyncio.Queue[str] = asyncio.Queue()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with caplog.at_level(logging.ERROR):
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            child = Child(
                "helper",
                (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(1000)"),
                environment=os.environ,
                take_line=lines.put_nowait,
            )
            async with asyncio.timeout(10):
                while "the helper process cannot go on: it cannot be started" not in caplog.text:
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            async with asyncio.timeout(20):
                assert await lines.get() == "begun"
        finally:
            await child.stop(signal.SIGTERM, timeout_seconds=5)
