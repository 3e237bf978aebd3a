"""Uvicorn, set up for a container behind a proxy."""

import asyncio
import contextlib
import importlib.util
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from moorage.modelhost.app import App
from moorage.modelhost.pool import WorkerPool
from moorage.modelhost.settings import Settings

logger = logging.getLogger("modelhost")

# A proxy keeps its connections; the side that waits longer must be this one, or it closes under a request.
_KEEP_ALIVE_SECONDS = 75

# The platform kills 30 s after SIGTERM.
_DRAIN_SECONDS = 25


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the front's: uvicorn would raise them again at its end, and the exit code be -15."""
        yield


async def run(
    pool: WorkerPool, settings: Settings, listener: socket.socket, stopping: asyncio.Task[Any]
) -> None:
    """Listens and serves until `stopping` is done, then until what is in flight has ended or time is up."""
    config = uvicorn.Config(
        App(pool, max_request_bytes=settings.max_request_bytes),
        interface="asgi3",
        http="httptools" if importlib.util.find_spec("httptools") else "h11",
        ws="none",
        lifespan="off",
        # The application logs its own faults; uvicorn would call every broken stream one.
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve")
    logger.info("listening on %s:%d", *listener.getsockname()[:2])
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping: no new connections, waiting for what is in flight")
    finally:
        server.should_exit = True
        await serving
