"""The gateway's end of the feed: routing snapshots in, drained instances out.

One JSON value a line. From the controller, after connecting: `{"only": [[account_id, name]…]}` (there are no other
routes), a `{"put": route}` for each, and `{"complete": true}`; each is small, so that invocations go on between them.
Then `{"put": route}`, `{"remove": [account_id, name]}`, `{"identities": message}` (who may call: see
`moorage.gateway.identities`), `{"policies": {arn: document…}}` (those of all endpoints),
`{"bucket_policies": {name: {"account_id": id, "document": document}…}}` (those of all buckets that have one),
`{"endpoint_tags": {"whole": bool, "tags": {arn: tags…}}}` (of endpoints, all that have some, or null for none),
`{"control_plane": {…}}` (how the controller and its database do), `{"drain": [instance_id…]}` and `{"sync": number}`.
To the controller: `{"drained": instance_id}` when an instance that no route names any more has nothing inside it, and
`{"synced": number}` once everything before that `sync` has been taken in. While the controller is away the last table
stays. Once a second, and at the end, goes what has been observed since (`counts`, of which each is told once): a
process that is killed takes the last second with it.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moorage.gateway.identities import Gap
from moorage.process_usage import process_usage
from moorage.routing.table import InFlight, RoutingTable

_RETRY_SECONDS = 0.1
_OBSERVE_SECONDS = 1.0
_LAST_WORDS_SECONDS = 1.0
_LONGEST_LINE = 256 * 1024 * 1024
logger = logging.getLogger(__name__)

Report = dict[str, Any]


async def follow(
    path: Path,
    table: RoutingTable,
    reports: "asyncio.Queue[Report]",
    received: asyncio.Event,
    *,
    identities: Callable[[Mapping[str, Any]], None] = lambda message: None,
    policies: Callable[[Mapping[str, str]], None] = lambda documents: None,
    bucket_policies: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda buckets: None,
    endpoint_tags: Callable[[Mapping[str, Any]], None] = lambda change: None,
    control_plane: Callable[[Mapping[str, Any]], None] = lambda state: None,
    observe: Callable[[], Iterable[Report]] | None = None,
) -> None:
    """Keep `table` up to date, until cancelled; reconnects by itself. `received` is set once it is whole.
    `identities` is called with each message about who may call, `policies` with those of the endpoints,
    `bucket_policies` with those of the buckets, `endpoint_tags` with tags of endpoints, and `control_plane` with how
    the controller does, which includes that it is away. `observe` is asked, while there is a controller to tell, for
    what has been observed."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE)
        except OSError:
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        while not reports.empty():
            reports.get_nowait()  # answers to a controller that is gone; this one asks again
        reporters = [asyncio.create_task(_report(reports, writer), name="report to the controller")]
        if observe is not None:
            reporters.append(asyncio.create_task(_observe(observe, writer), name="tell what is observed"))
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if "identities" in message:
                    identities(message["identities"])
                elif "policies" in message:
                    policies(message["policies"])
                elif "bucket_policies" in message:
                    bucket_policies(message["bucket_policies"])
                elif "endpoint_tags" in message:
                    endpoint_tags(message["endpoint_tags"])
                elif "control_plane" in message:
                    control_plane(message["control_plane"])
                else:
                    _apply(message, table, reports)
                if table.complete:
                    received.set()
                await asyncio.sleep(0)  # thousands of lines may be waiting, and so may invocations
        except (OSError, Gap) as error:
            logger.warning("the feed broke: %s", error)
        except asyncio.CancelledError:
            if observe is not None:
                await _say_last(observe(), writer)
            raise
        finally:
            for reporter in reporters:
                reporter.cancel()
            writer.close()
            control_plane({"controller": {"available": False, "since": datetime.now(UTC).isoformat()}})
        await asyncio.sleep(_RETRY_SECONDS)


def _apply(message: dict[str, Any], table: RoutingTable, reports: "asyncio.Queue[Report]") -> None:
    if "put" in message:
        table.put(message["put"])
    elif "only" in message:
        table.keep_only({(account_id, name) for account_id, name in message["only"]})
    elif "complete" in message:
        table.complete = True
    elif "remove" in message:
        table.remove(*message["remove"])
    elif "drain" in message:
        for instance_id in message["drain"]:
            if table.is_drained(instance_id):
                reports.put_nowait({"drained": instance_id})
    elif "sync" in message:
        reports.put_nowait({"synced": message["sync"]})


def observed(table: RoutingTable, process: Mapping[str, Any]) -> Iterator[Report]:
    """What the table's routes have counted, and at the end how this process does."""
    in_flight: list[InFlight] = []
    for counts, inside in table.observe():
        in_flight += inside
        if counts:
            yield {"counts": counts}
    yield {"process": {**process, **process_usage(), "in_flight": in_flight}}


async def _report(reports: "asyncio.Queue[Report]", writer: asyncio.StreamWriter) -> None:
    while True:
        report = await reports.get()
        writer.write(_line(report))
        await writer.drain()


async def _observe(observe: Callable[[], Iterable[Report]], writer: asyncio.StreamWriter) -> None:
    """What is told comes in pieces, so that others have their turn between them."""
    while True:
        await asyncio.sleep(_OBSERVE_SECONDS)
        for report in observe():
            writer.write(_line(report))
            await writer.drain()
            await asyncio.sleep(0)


async def _say_last(reports: Iterable[Report], writer: asyncio.StreamWriter) -> None:
    """See that this is sent before the process ends."""
    for report in reports:
        writer.write(_line(report))
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await writer.wait_closed()


def _line(report: Report) -> bytes:
    return json.dumps(report).encode() + b"\n"
