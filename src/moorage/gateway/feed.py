"""The gateway's end of the feed: routing snapshots in, drained instances out.

One JSON value a line. From the controller: `{"reset": [route…]}` once after connecting, then `{"put": route}`,
`{"remove": [account_id, name]}` and `{"drain": [instance_id…]}`. To the controller: `{"drained": instance_id}` when
an instance that no route names any more has nothing inside it. While the controller is away the last table stays.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from moorage.routing.table import RoutingTable

_RETRY_SECONDS = 0.1
_LONGEST_LINE = 256 * 1024 * 1024
logger = logging.getLogger(__name__)


async def follow(path: Path, table: RoutingTable, drained: "asyncio.Queue[str]") -> None:
    """Keep `table` up to date, until cancelled; reconnects by itself."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE)
        except OSError:
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        reporter = asyncio.create_task(_report(drained, writer), name="report drained instances")
        try:
            while line := await reader.readline():
                _apply(json.loads(line), table, drained)
        except OSError as error:
            logger.warning("the feed broke: %s", error)
        finally:
            reporter.cancel()
            writer.close()
        await asyncio.sleep(_RETRY_SECONDS)


def _apply(message: dict[str, Any], table: RoutingTable, drained: "asyncio.Queue[str]") -> None:
    if "reset" in message:
        table.reset(message["reset"])
    elif "put" in message:
        table.put(message["put"])
    elif "remove" in message:
        table.remove(*message["remove"])
    elif "drain" in message:
        for instance_id in message["drain"]:
            if table.is_drained(instance_id):
                drained.put_nowait(instance_id)


async def _report(drained: "asyncio.Queue[str]", writer: asyncio.StreamWriter) -> None:
    while True:
        instance_id = await drained.get()
        writer.write(json.dumps({"drained": instance_id}).encode() + b"\n")
        await writer.drain()
