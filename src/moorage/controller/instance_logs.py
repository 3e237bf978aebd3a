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

from moorage.controller.log_files import LogDirectories, LogName, Place, in_thread, logs_in, read_log

_POLL_SECONDS = 0.2


def log_routes(directories: LogDirectories) -> list[Route]:
    async def logs(request: Request) -> Response:
        account_id, name = request.headers["x-moorage-account-id"], request.path_params["name"]
        directory = await directories.find(account_id, name)
        if directory is None:
            return JSONResponse({"message": f"There is no endpoint {name} and no log of it."}, 404)
        lines = int(request.query_params.get("lines", "1000"))
        follow = request.query_params.get("follow") == "1"
        return StreamingResponse(_read(directory, lines, follow), media_type="application/x-ndjson")

    return [Route("/_moorage/endpoints/{name}/logs", logs, methods=["GET"])]


async def _read(directory: Path, lines: int, follow: bool) -> AsyncIterator[str]:
    """The logs below a directory, the oldest first, then what is added to any of them."""
    stamps: dict[LogName, tuple[int, int]] = {}
    places: dict[LogName, Place] = {}
    while True:
        for log, stamp in (await in_thread(logs_in, directory)).items():
            if stamps.get(log) == stamp:
                continue
            piece = await in_thread(read_log, directory, log, after=places.get(log))
            shown = piece.lines if log in places else piece.lines[max(0, len(piece.lines) - lines) :]
            if log not in places or not piece.lines:
                stamps[log] = stamp  # otherwise there may be more than one piece
            places[log] = piece.end
            for line in shown:
                text = line.text.decode("utf-8", "replace")
                yield (
                    json.dumps({"variant": log.variant, "instance_id": log.instance_id, "line": text}) + "\n"
                )
        if not follow:
            return
        await asyncio.sleep(_POLL_SECONDS)
