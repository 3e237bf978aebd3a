"""`GET /_moorage/endpoints/{name}/logs`: what the containers of an endpoint have printed.

One JSON object a line: `{"variant", "instance_id", "line"}`. `?follow=1` keeps the reply open for what comes,
`?lines=N` limits how much of the past each log shows. Private to the command line tools.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from moorage.config import Settings
from moorage.controller.fleet import log_directory
from moorage.resources import Endpoint
from moorage.storage.base import ResourceStore

_POLL_SECONDS = 0.2
_LONGEST_TAIL = 4 * 1024 * 1024


def log_routes(settings: Settings, store: ResourceStore) -> list[Route]:
    async def logs(request: Request) -> Response:
        account_id, name = request.headers["x-moorage-account-id"], request.path_params["name"]
        directory = log_directory(settings, account_id, name)
        if await store.get(Endpoint, account_id, name) is None and not directory.is_dir():
            return JSONResponse({"message": f"There is no endpoint {name} and no log of it."}, 404)
        lines = int(request.query_params.get("lines", "1000"))
        follow = request.query_params.get("follow") == "1"
        return StreamingResponse(_read(directory, lines, follow), media_type="application/x-ndjson")

    return [Route("/_moorage/endpoints/{name}/logs", logs, methods=["GET"])]


async def _read(directory: Path, lines: int, follow: bool) -> AsyncIterator[str]:
    """The logs below a directory, the oldest first, then what is added to any of them."""
    positions: dict[Path, int] = {}
    while True:
        for path in sorted(directory.glob("*/*.log"), key=lambda path: path.stat().st_mtime):
            if path not in positions:
                past, positions[path] = await asyncio.to_thread(_tail, path, lines)
            else:
                past, positions[path] = await asyncio.to_thread(_since, path, positions[path])
            for line in past:
                yield json.dumps({"variant": path.parent.name, "instance_id": path.stem, "line": line}) + "\n"
        if not follow:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _tail(path: Path, lines: int) -> tuple[list[str], int]:
    start = max(0, path.stat().st_size - _LONGEST_TAIL)
    text, position = _since(path, start)
    return text[-lines:] if lines else [], position


def _since(path: Path, position: int) -> tuple[list[str], int]:
    """The complete lines after a position, and where they end. A log that was cut is read from its start."""
    with path.open("rb") as file:
        if path.stat().st_size < position:
            position = 0
        file.seek(position)
        data = file.read()
    complete, _, _ = data.rpartition(b"\n")
    if not complete:
        return [], position
    return complete.decode("utf-8", "replace").split("\n"), position + len(complete) + 1
