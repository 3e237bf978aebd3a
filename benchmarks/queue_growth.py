"""A queue of a million asynchronous invocations, most of them finished: lists, counts, start-up, claims, and what
all of these and a purge of the finished ones do to those that are accepted meanwhile.

Usage: python benchmarks/queue_growth.py [--database-url URL] [--kept 1000000] [--queued 100000] [--seconds 20]

The queue is used directly, in one process, as the controller uses it. Without `--database-url` it is in SQLite, in a
temporary directory; with `postgresql+asyncpg://…` the database should be an empty one. Invocations are accepted at
50 a second; each is timed from the moment at which it was due. `--figures-only` leaves the judgement to the reader,
else the exit status is 1 when a figure is not reached.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, literal, select, text

from moorage.async_inference.acceptance import time_ordered_id
from moorage.async_inference.base import AsyncInvocation, Status
from moorage.async_inference.purge import purge
from moorage.async_inference.sql import SqlQueue
from moorage.storage.database import Database, open_database
from moorage.storage.schema import async_bodies, async_counts, async_invocations
from tables import Table, markdown

ACCOUNT, ENDPOINTS = "000000000000", 20
BODY = b'{"instances": [[0.1, 0.2, 0.3]]}' * 32
PER_SECOND = 50
TO_REACH = {
    "first page of a list, ms": 100.0,
    "counts, ms": 50.0,
    "start-up of the queue, ms": 1000.0,
    "accepted beside lists and counts: p99 ms": 50.0,
    "accepted beside a purge: p99 ms": 50.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database-url", default="")
    parser.add_argument("--kept", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--figures-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database_url or f"sqlite+aiosqlite:///{folder}/moorage.db"
        figures = asyncio.run(measure(url, given.kept, given.queued, given.seconds))
    where = url.partition("+")[0].replace("sqlite", "SQLite").replace("postgresql", "PostgreSQL")
    table = Table(
        name="queue-growth",
        title=f"A queue of {given.kept:,} invocations in {where}",
        setup=f"{given.queued:,} of them are queued, for {ENDPOINTS} endpoints; bodies of {len(BODY):,} bytes.",
        figures={name: {"moorage": values} for name, values in figures.items()},
    )
    print(f"\n{markdown(table)}")
    missed = {name: values for name, values in figures.items() if max(values) > TO_REACH.get(name, 1e9)}
    for name, values in missed.items():
        print(f"Not reached: {name}: {max(values):.1f} instead of {TO_REACH[name]:g}.", file=sys.stderr)
    return 1 if missed and not given.figures_only else 0


async def measure(url: str, kept: int, queued: int, seconds: float) -> dict[str, list[float]]:
    database = await open_database(url)
    await fill(database, queued=queued, finished=kept - queued, endpoints=ENDPOINTS)
    await database.close()

    started = time.perf_counter()
    database = await open_database(url)
    queue = SqlQueue(database)
    await queue.recover()
    assert len(await queue.backlogged()) == ENDPOINTS
    await queue.claim_expired(most=64)
    await queue.seconds_to_expiry()
    figures = {"start-up of the queue, ms": [(time.perf_counter() - started) * 1000]}
    try:
        figures["first page of a list, ms"] = await _times(lambda: _first_pages(queue), of=12)
        figures["counts, ms"] = await _times(lambda: queue.backlogs(ACCOUNT))
        figures["counts for the metrics, ms"] = await _times(queue.unfinished)
        figures["claim of 16, ms"] = await _times(lambda: queue.claim(ACCOUNT, "e0", most=16))
        alone = asyncio.sleep(seconds)
        figures |= _quantiles("accepted alone", await _accepted_while(queue, alone))
        looked = await _accepted_while(queue, _look(queue, seconds))
        figures |= _quantiles("accepted beside lists and counts", looked)
        purging = asyncio.ensure_future(
            purge(queue, finished_before=datetime.now(UTC), within_seconds=4 * seconds)
        )
        begun = time.perf_counter()
        figures |= _quantiles("accepted beside a purge", await _accepted_while(queue, purging))
        figures["forgotten a second"] = [purging.result()[0] / (time.perf_counter() - begun)]
    finally:
        await database.close()
    return figures


async def fill(database: Database, *, queued: int, finished: int, endpoints: int) -> None:
    """The newest are queued. The others ended in the last day, one in fifty as failed."""
    number = queued + finished
    first = datetime.now(UTC) - timedelta(hours=20)
    apart = timedelta(hours=19) / number
    for start in range(0, number, 10_000):
        rows = [
            _row(each, first + each * apart, finished=each < finished, endpoints=endpoints)
            for each in range(start, min(start + 10_000, number))
        ]
        async with database.write() as connection:
            await connection.execute(insert(async_invocations), rows)
    table = async_invocations.c
    needed = select(table.sequence, literal(BODY)).where(table.finished_time.is_(None))
    status = func.coalesce(table.status, "Queued")
    numbers = select(table.account_id, table.endpoint_name, status, func.count()).group_by(
        table.account_id, table.endpoint_name, status
    )
    async with database.write() as connection:
        await connection.execute(insert(async_bodies).from_select(["sequence", "body"], needed))
        names = ["account_id", "endpoint_name", "status", "number"]
        await connection.execute(insert(async_counts).from_select(names, numbers))
    if database.engine.dialect.name == "postgresql":
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE async_invocations"))


def _row(number: int, received: datetime, *, finished: bool, endpoints: int) -> dict[str, Any]:
    id = time_ordered_id(received)
    status = (Status.FAILED if number % 50 == 0 else Status.COMPLETED).value
    return {
        "invocation_id": id,
        "account_id": ACCOUNT,
        "endpoint_name": f"e{number % endpoints}",
        "inference_id": id,
        "received_time": received,
        "expires_time": received + timedelta(hours=60),
        "request": {"timeout_seconds": 900, "output_location": f"s3://results/deep/{id}.out"},
        "claim_after": received,
        "attempts": int(finished),
        "deaths": 0,
        "first_claimed_time": received if finished else None,
        "finished_time": received + timedelta(seconds=1) if finished else None,
        "status": status if finished else None,
    }


async def _times(work: Callable[[], Awaitable[object]], *, of: int = 1, rounds: int = 10) -> list[float]:
    """Milliseconds of each round, or of one of the `of` parts of it."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        times.append((time.perf_counter() - started) * 1000 / of)
    return times


async def _first_pages(queue: SqlQueue) -> None:
    for endpoint in (None, "e1"):
        for status in (None, *Status):
            await queue.records(ACCOUNT, endpoint_name=endpoint, status=status, most=100)


async def _look(queue: SqlQueue, seconds: float) -> None:
    """Ten times a second, what `moorage async list` asks for, and the metrics."""
    statuses = itertools.cycle((None, *Status))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await queue.records(ACCOUNT, endpoint_name="e1", status=next(statuses), most=100)
        await queue.backlogs(ACCOUNT)
        await queue.unfinished()
        await asyncio.sleep(0.1)


async def _accepted_while(queue: SqlQueue, work: Awaitable[object]) -> list[float]:
    """Milliseconds that each invocation took to be accepted, from the moment at which it was due."""
    times: list[float] = []

    async def accept(due: float) -> None:
        now = datetime.now(UTC)
        id = time_ordered_id(now)
        await queue.put(
            AsyncInvocation(
                invocation_id=id,
                account_id=ACCOUNT,
                endpoint_name="accepted",
                inference_id=id,
                received_time=now,
                expires_time=now + timedelta(hours=6),
                timeout_seconds=900,
                body=BODY,
            )
        )
        times.append((time.perf_counter() - due) * 1000)

    working = asyncio.ensure_future(work)
    due = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        while not working.done():
            tasks.create_task(accept(due))
            due += 1 / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await working
    return times


def _quantiles(name: str, times: list[float]) -> dict[str, list[float]]:
    cuts = statistics.quantiles(times, n=1000)
    return {
        f"{name}: p50 ms": [cuts[499]],
        f"{name}: p99 ms": [cuts[989]],
        f"{name}: most ms": [max(times)],
    }


if __name__ == "__main__":
    sys.exit(main())
