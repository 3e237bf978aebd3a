"""The front process: starts the workers, opens the port when they are ready, drains when told to stop."""

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from moorage.modelhost import versions
from moorage.modelhost.errors import StartupError
from moorage.modelhost.pool import WorkerPool
from moorage.modelhost.reception import Reception
from moorage.modelhost.settings import Settings

logger = logging.getLogger("modelhost")

# The platform kills 30 s after SIGTERM.
_DRAIN_SECONDS = 25


def serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT. StartupError, before the port is opened, when there is nothing to serve."""
    # Until there is an event loop, stopping means leaving.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    with _bound(settings) as listener:
        python = Path(sys.executable)
        pins = versions.requirements(_pinned(settings))
        if settings.requirements is not None or pins:
            from moorage.modelhost import environments  # here, because most models bring none

            logger.info(
                "environment for %s", ", ".join([*pins, str(settings.requirements or "")]).strip(", ")
            )
            python = environments.python_for(settings.requirements, settings.environments_dir, pins=pins)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, python, listener))


async def _serve(settings: Settings, python: Path, listener: socket.socket) -> None:
    pool = WorkerPool(settings, python)
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        started = time.monotonic()
        await pool.launch()
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


def _pinned(settings: Settings) -> dict[str, str]:
    """The versions that the image names, where they are to run."""
    if not settings.pins_frameworks:
        return {}
    from moorage.modelhost import families

    distributions = families.create(settings, has_code=settings.code_dir is not None).distributions
    return versions.named_by(settings.framework_version, distributions)


def _bound(settings: Settings) -> socket.socket:
    """Bound, so that a taken port is known at once, but not listening, so that nobody gets through yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise StartupError(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): free the port, or set "
            "SAGEMAKER_BIND_TO_PORT or SAGEMAKER_BIND_TO_HOST to one that is free."
        ) from None
    return sock


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
