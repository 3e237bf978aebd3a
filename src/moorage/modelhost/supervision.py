"""The front's loop: supervises the workers, opens the port when they are ready, drains when told to stop."""

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moorage.modelhost.forked import Forked
from moorage.modelhost.pool import WorkerPool
from moorage.modelhost.reception import Reception
from moorage.modelhost.settings import Settings

logger = logging.getLogger("modelhost")

# The platform kills 30 s after SIGTERM.
_DRAIN_SECONDS = 25


def serve(settings: Settings, python: Path, listener: socket.socket, workers: Sequence[Forked]) -> None:
    """Returns after SIGTERM or SIGINT. StartupError, before the port is opened, when the model cannot be loaded. The
    workers are those that are forked already; without any, they are started."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, python, listener, workers))


async def _serve(
    settings: Settings, python: Path, listener: socket.socket, workers: Sequence[Forked]
) -> None:
    pool = WorkerPool(settings, python)
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        started = time.monotonic()
        await pool.launch(workers)
        loading = asyncio.create_task(pool.load(), name="load")
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading
            logger.info(
                "model loaded by %d worker(s) in %.2f s", settings.workers, time.monotonic() - started
            )
            await _receive(pool, listener, stopping)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    finally:
        stopping.cancel()
        await pool.stop()
    logger.info("stopped")


async def _receive(pool: WorkerPool, listener: socket.socket, stopping: asyncio.Task[Any]) -> None:
    """Serves until `stopping` is done, then until what is in flight has ended or time is up."""
    reception = Reception(pool, listener)
    reception.open()
    logger.info("listening on %s:%d", *listener.getsockname()[:2])
    await stopping
    logger.info("stopping: no new connections, waiting for what is in flight")
    reception.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            await pool.drain(reception.emptied)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
