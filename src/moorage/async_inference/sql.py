"""The queue in the database: the same statements on SQLite and PostgreSQL.

An invocation that is queued has a time from which it can be claimed (`claim_after`): when it was accepted, or the
end of a pause before another attempt. Claiming gives it a token, and whoever has the token alone may finish or
release it. No statement reads more than it answers with, however many invocations are kept: each state has indexes
of its own, and how many there are of each is counted in the transactions that change them (`async_counts`).

Bodies are in a table of their own, so that what is done to an invocation costs the same whatever came with it.
"""

import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.async_inference.base import (
    FINAL,
    MOST_DELAY_SECONDS,
    AsyncInvocation,
    Backlog,
    Claim,
    EndpointKey,
    Forgotten,
    Notice,
    Outcome,
    Record,
    Status,
    Unfinished,
)
from moorage.async_inference.group_commit import GroupCommit
from moorage.async_inference.outbox import insert_notices
from moorage.clock import SteadyClock
from moorage.storage.database import Database
from moorage.storage.schema import async_bodies as bodies
from moorage.storage.schema import async_counts as counts
from moorage.storage.schema import async_invocations as table

_IN_REQUEST = (
    "timeout_seconds",
    "content_type",
    "accept",
    "custom_attributes",
    "input_location",
    "output_location",
    "failure_location",
    "success_topic",
    "error_topic",
    "role_arn",
    "role_exists",
    "include_response_in",
)
"""The fields of an invocation that no statement asks for: they share one column."""

_ROW_BYTES = 2048
"""What an invocation without its body takes in memory, about."""

_unfinished = table.c.finished_time.is_(None)
_finished = table.c.finished_time.is_not(None)
_queued = and_(_unfinished, table.c.token.is_(None))
_running = table.c.token.is_not(None)
_account, _endpoint = table.c.account_id.concat(""), table.c.endpoint_name.concat("")
"""In expressions, so that a statement about some span of time goes by the index of that, and not through all that an
account has."""

_insert = insert(table).returning(table.c.sequence, sort_by_parameter_order=True)
_hold = (
    update(table)
    .where(table.c.sequence.in_(bindparam("sequences", expanding=True)))
    .values(
        token=bindparam("new_token"),
        attempts=table.c.attempts + 1,
        first_claimed_time=func.coalesce(
            table.c.first_claimed_time, bindparam("now", type_=table.c.first_claimed_time.type)
        ),
    )
)
_finish = (
    update(table)
    .where(table.c.sequence == bindparam("finished_sequence"))
    .values(
        token=None,
        finished_time=bindparam("at"),
        status=bindparam("final_status"),
        reason=bindparam("final_reason"),
    )
)
_add_to_counts = text(
    "INSERT INTO async_counts (account_id, endpoint_name, status, number) "
    "VALUES (:account_id, :endpoint_name, :status, :change) "
    "ON CONFLICT (account_id, endpoint_name, status) DO UPDATE SET number = async_counts.number + excluded.number"
)

Changes = Counter[tuple[str, str, Status]]
"""By how much the numbers of an endpoint's invocations change."""


class SqlQueue:
    """Implements `moorage.async_inference.base.Queue`.

    `clock` is that of the notices' sender, too. What people read, and times to live, go by its time of day: a time to
    live ends when the caller was told that it would. Everything else goes by the clock, which never steps.
    """

    def __init__(self, database: Database, *, clock: SteadyClock | None = None) -> None:
        self._database = database
        self._clock = clock or SteadyClock()
        self._has_begun = False
        self._claiming: set[str] = set()
        self._held: set[tuple[str, str]] = set()
        """The invocation ids and tokens of the claims that are in somebody's hands."""
        self._put: GroupCommit[AsyncInvocation, None] = GroupCommit(self._put_batch, size=_size)
        self._finish: GroupCommit[tuple[Claim, Outcome], bool] = GroupCommit(self._finish_batch)

    def __repr__(self) -> str:
        return f"<SqlQueue {len(self._held)} claimed>"

    async def put(self, invocation: AsyncInvocation) -> None:
        await self._put(invocation)

    async def settled(self) -> None:
        await self._put.settled()

    async def _put_batch(self, invocations: Sequence[AsyncInvocation]) -> Sequence[None]:
        now = self._clock()
        async with self._database.write() as connection:
            rows = [_to_row(invocation, claim_after=now) for invocation in invocations]
            sequences = (await connection.scalars(_insert, rows)).all()
            given = [
                {"sequence": sequence, "body": invocation.body}
                for sequence, invocation in zip(sequences, invocations, strict=True)
                if invocation.body is not None
            ]
            if given:
                await connection.execute(insert(bodies), given)
            await _count(connection, Changes((*_key(each), Status.QUEUED) for each in invocations))
        return [None] * len(invocations)

    # --- claims ---------------------------------------------------------------------------------------

    async def claim(self, account_id: str, endpoint_name: str, *, most: int) -> Sequence[Claim]:
        query = (
            select(table)
            .where(_queued, table.c.account_id == account_id, table.c.endpoint_name == endpoint_name)
            .where(table.c.claim_after <= self._clock())
            .order_by(table.c.claim_after, table.c.sequence)
        )
        return await self._claim(query, most)

    async def claim_expired(self, *, most: int) -> Sequence[Claim]:
        query = (
            select(table)
            .where(_queued, table.c.expires_time <= self._clock.time_of_day())
            .order_by(table.c.expires_time)
        )
        return await self._claim(query, most)

    async def take(self, account_id: str, invocation_id: str) -> Claim | None:
        query = select(table).where(
            _queued, table.c.account_id == account_id, table.c.invocation_id == invocation_id
        )
        claims = await self._claim(query, 1)
        return claims[0] if claims else None

    async def _claim(self, query: Select[Any], most: int) -> Sequence[Claim]:
        now, token = self._clock.time_of_day(), str(uuid.uuid4())
        self._claiming.add(token)  # `recover` may run between the commit and the lines that follow it
        try:
            async with self._database.write() as connection:
                rows = (await connection.execute(query.limit(most).with_for_update(skip_locked=True))).all()
                if not rows:
                    return []
                sequences = [row.sequence for row in rows]
                await connection.execute(_hold, {"sequences": sequences, "new_token": token, "now": now})
                found = await connection.execute(select(bodies).where(bodies.c.sequence.in_(sequences)))
                given = {row.sequence: row.body for row in found}
                await _count(connection, _moved(rows, Status.QUEUED, Status.RUNNING))
            claims = [_to_claim(row, given.get(row.sequence), token, now) for row in rows]
            self._held.update(map(_identity, claims))
            return claims
        finally:
            self._claiming.discard(token)

    async def release(
        self,
        claim: Claim,
        *,
        delay_seconds: float = 0.0,
        died: bool = False,
        retrying_since: datetime | None = None,
        unattempted: bool = False,
    ) -> bool:
        changes: dict[str, Any] = {"token": None, "retrying_since": retrying_since}
        if delay_seconds:  # else it goes where it was, which is the front
            pause = timedelta(seconds=min(delay_seconds, MOST_DELAY_SECONDS))
            changes["claim_after"] = self._clock() + pause
        if died:
            changes["deaths"] = table.c.deaths + 1
        if unattempted:
            changes["attempts"] = table.c.attempts - 1
        async with self._database.write() as connection:
            result = await connection.execute(update(table).where(_is_held(claim)).values(changes))
            released = result.rowcount == 1
            if released:
                await _count(connection, _moved([claim.invocation], Status.RUNNING, Status.QUEUED))
        self.abandon(claim)
        return released

    def abandon(self, claim: Claim) -> None:
        self._held.discard(_identity(claim))

    async def recover(self) -> Sequence[EndpointKey]:
        if not self._has_begun:
            await self._set_clock()
            async with self._database.write() as connection:  # of endpoints that may be gone
                await connection.execute(delete(counts).where(counts.c.number == 0))
            self._has_begun = True
        query = select(
            table.c.sequence, table.c.invocation_id, table.c.token, table.c.account_id, table.c.endpoint_name
        ).where(_running)
        async with self._database.read() as connection:
            seen = (await connection.execute(query)).all()
        lost = {row.sequence: row.token for row in seen if not self._is_in_hands(row)}
        if not lost:
            return []
        query = query.where(table.c.sequence.in_(lost)).with_for_update()
        async with self._database.write() as connection:
            locked = await connection.execute(query)
            rows = [row for row in locked if row.token == lost[row.sequence]]
            sequences = [row.sequence for row in rows]
            await connection.execute(update(table).where(table.c.sequence.in_(sequences)).values(token=None))
            await _count(connection, _moved(rows, Status.RUNNING, Status.QUEUED))
        return list({_key(row) for row in rows})

    def _is_in_hands(self, row: Any) -> bool:
        return (row.invocation_id, row.token) in self._held or row.token in self._claiming

    async def _set_clock(self) -> None:
        """What an earlier process has stored must not be in this one's future, except for a pause."""
        endpoints = _endpoints(Status.QUEUED)
        latest = (
            select(table.c.claim_after)
            .where(_queued, *_of(endpoints))
            .order_by(table.c.claim_after.desc())
            .limit(1)
            .scalar_subquery()
        )
        async with self._database.read() as connection:
            times = (await connection.scalars(select(latest).select_from(endpoints))).all()
        for latest_time in times:
            if latest_time is not None:
                self._clock.not_before(latest_time - timedelta(seconds=MOST_DELAY_SECONDS))

    async def finish(self, claim: Claim, outcome: Outcome) -> bool:
        finished = await self._finish((claim, outcome))
        self.abandon(claim)
        return finished

    async def _finish_batch(self, batch: Sequence[tuple[Claim, Outcome]]) -> Sequence[bool]:
        finished = []
        async with self._database.write() as connection:
            held = await _lock_held(connection, [claim for claim, _ in batch])
            rows: list[dict[str, Any]] = []
            notices: list[Notice] = []
            completed: list[int] = []
            changes = Changes()
            for claim, outcome in batch:
                sequence = held.pop(_identity(claim), None)
                finished.append(sequence is not None)
                if sequence is not None:
                    notices += outcome.notices
                    changes.update(_moved([claim.invocation], Status.RUNNING, outcome.status))
                    if outcome.status is Status.COMPLETED:
                        completed.append(sequence)
                    rows.append(
                        {
                            "finished_sequence": sequence,
                            "at": outcome.finished_time,
                            "final_status": outcome.status.value,
                            "final_reason": outcome.reason,
                        }
                    )
            if rows:
                await connection.execute(_finish, rows)
            if completed:
                await connection.execute(delete(bodies).where(bodies.c.sequence.in_(completed)))
            if notices:
                await insert_notices(connection, notices, self._clock())
            await _count(connection, changes)
        return finished

    async def seconds_to_claimable(self, account_id: str, endpoint_name: str) -> float | None:
        query = (
            select(table.c.claim_after)
            .where(_queued, table.c.account_id == account_id, table.c.endpoint_name == endpoint_name)
            .order_by(table.c.claim_after)
            .limit(1)
        )
        due = await self._time(query)
        return None if due is None else max(0.0, (due - self._clock()).total_seconds())

    async def seconds_to_expiry(self) -> float | None:
        now = self._clock.time_of_day()
        query = (
            select(table.c.expires_time)
            .where(_queued, table.c.expires_time > now)
            .order_by(table.c.expires_time)
            .limit(1)
        )
        due = await self._time(query)
        return None if due is None else max(0.0, (due - now).total_seconds())

    async def _time(self, query: Select[tuple[datetime]]) -> datetime | None:
        async with self._database.read() as connection:
            found: datetime | None = await connection.scalar(query)
            return found

    # --- for people -----------------------------------------------------------------------------------

    async def has_unfinished(self, account_id: str, endpoint_name: str) -> bool:
        return (account_id, endpoint_name) in await self._endpoints(
            Status.QUEUED, Status.RUNNING, account_id=account_id, endpoint_name=endpoint_name
        )

    async def backlogged(self) -> Sequence[EndpointKey]:
        return await self._endpoints(Status.QUEUED, Status.RUNNING)

    async def _endpoints(
        self, *statuses: Status, account_id: str | None = None, endpoint_name: str | None = None
    ) -> Sequence[EndpointKey]:
        endpoints = _endpoints(*statuses, account_id=account_id, endpoint_name=endpoint_name)
        async with self._database.read() as connection:
            return [_key(row) for row in await connection.execute(select(endpoints))]

    async def unfinished(self) -> Sequence[Unfinished]:
        endpoints = _endpoints(Status.QUEUED, Status.RUNNING)
        query = select(endpoints, _oldest(endpoints).label("oldest"))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Unfinished(
                account_id=row.account_id,
                endpoint_name=row.endpoint_name,
                number=row.number,
                oldest_received_time=row.oldest,
            )
            for row in rows
            if row.oldest is not None  # it has finished between the two looks of one statement
        ]

    async def backlogs(self, account_id: str) -> Sequence[Backlog]:
        minute = timedelta(minutes=1)
        now, since = self._clock(), self._clock.time_of_day() - minute
        endpoints = _endpoints(*Status, account_id=account_id)
        of_endpoint = _of(endpoints)
        received = table.c.received_time >= since
        number = select(func.count()).select_from(table)
        # Whatever was received in the last minute has been put into the queue since, or is running, or has ended
        # since.
        unfinished = select(
            endpoints.c.endpoint_name,
            _oldest(endpoints).label("oldest"),
            number.where(_queued, *of_endpoint, table.c.claim_after >= now - minute, received)
            .scalar_subquery()
            .label("queued"),
            number.where(_running, *of_endpoint, received).scalar_subquery().label("running"),
        )
        finished = (
            select(
                table.c.endpoint_name,
                func.count().label("number"),
                func.count().filter(received).label("received"),
            )
            .where(_finished, table.c.finished_time >= since, _account == account_id)
            .group_by(table.c.endpoint_name)
        )
        numbers = select(counts).where(counts.c.account_id == account_id, counts.c.number > 0)
        by_endpoint: dict[str, dict[Status, int]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(numbers):
                by_endpoint.setdefault(row.endpoint_name, {})[Status(row.status)] = row.number
            rows = (await connection.execute(unfinished)).all()
            ended = {row.endpoint_name: row for row in await connection.execute(finished)}
        return [
            Backlog(
                account_id=account_id,
                endpoint_name=row.endpoint_name,
                counts=by_endpoint.get(row.endpoint_name, {}),
                oldest_received_time=row.oldest,
                received_last_minute=row.queued
                + row.running
                + (ended[row.endpoint_name].received if row.endpoint_name in ended else 0),
                finished_last_minute=ended[row.endpoint_name].number if row.endpoint_name in ended else 0,
            )
            for row in sorted(rows, key=lambda row: row.endpoint_name)
        ]

    async def records(
        self,
        account_id: str,
        *,
        endpoint_name: str | None = None,
        status: Status | None = None,
        before: int | None = None,
        most: int = 100,
    ) -> Sequence[tuple[int, Record]]:
        query = select(table).where(table.c.account_id == account_id)
        if endpoint_name is not None:
            query = query.where(table.c.endpoint_name == endpoint_name)
        if before is not None:
            query = query.where(table.c.sequence < before)
        query = query.order_by(table.c.sequence.desc()).limit(most)
        # Each state has its index in the order of this list; no index has them all.
        states = [_has_status(status)] if status else [_unfinished, *map(_has_status, FINAL)]
        async with self._database.read() as connection:
            rows = [row for state in states for row in await connection.execute(query.where(state))]
        rows.sort(key=lambda row: row.sequence, reverse=True)
        return [(row.sequence, _to_record(row)) for row in rows[:most]]

    async def find(self, account_id: str, id: str) -> Sequence[Record]:
        query = (
            select(table)
            .where(table.c.account_id == account_id)
            .where(or_(table.c.invocation_id == id, table.c.inference_id == id))
            .order_by(table.c.sequence.desc())
            .limit(100)
        )
        async with self._database.read() as connection:
            return [_to_record(row) for row in await connection.execute(query)]

    async def requeue(self, account_id: str, invocation_id: str, *, expires_time: datetime) -> bool:
        query = (
            select(table.c.account_id, table.c.endpoint_name, table.c.status, table.c.sequence)
            .where(table.c.account_id == account_id, table.c.invocation_id == invocation_id)
            .where(table.c.status.in_((Status.FAILED.value, Status.EXPIRED.value)))
            .with_for_update()
        )
        async with self._database.write() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return False
            # The attempts stay: they tell the next one that there may be objects of earlier ones.
            await connection.execute(
                update(table)
                .where(table.c.sequence == row.sequence)
                .values(
                    finished_time=None,
                    status=None,
                    reason=None,
                    deaths=0,
                    retrying_since=None,
                    claim_after=self._clock(),
                    expires_time=expires_time,
                )
            )
            await _count(connection, _moved([row], Status(row.status), Status.QUEUED))
        return True

    async def finished(
        self,
        *,
        before: datetime,
        account_id: str | None = None,
        endpoint_name: str | None = None,
        most: int,
    ) -> Sequence[int]:
        query = select(table.c.sequence).where(_finished, table.c.finished_time < before)
        if account_id is not None:
            query = query.where(_account == account_id)
        if endpoint_name is not None:
            query = query.where(_endpoint == endpoint_name)
        async with self._database.read() as connection:
            return (await connection.scalars(query.order_by(table.c.finished_time).limit(most))).all()

    async def forget(self, numbers: Sequence[int], *, finished_before: datetime) -> Forgotten:
        statement = (
            delete(table)
            .where(table.c.sequence.in_(numbers), table.c.finished_time < finished_before)
            .returning(table.c.sequence, table.c.account_id, table.c.endpoint_name, table.c.status)
        )
        async with self._database.write() as connection:
            started = time.monotonic()
            rows = (await connection.execute(statement)).all()
            changes = Changes()
            changes.subtract((*_key(row), Status(row.status)) for row in rows)
            if rows:
                sequences = [row.sequence for row in rows]
                await connection.execute(delete(bodies).where(bodies.c.sequence.in_(sequences)))
                await _count(connection, changes)
        return Forgotten(number=len(rows), seconds=time.monotonic() - started)


def _size(invocation: AsyncInvocation) -> int:
    return _ROW_BYTES + len(invocation.body or b"")


def _key(of: Any) -> EndpointKey:
    return of.account_id, of.endpoint_name


def _moved(of: Iterable[Any], before: Status, after: Status) -> Changes:
    changes = Changes()
    for each in of:
        changes[*_key(each), before] -= 1
        changes[*_key(each), after] += 1
    return changes


async def _count(connection: AsyncConnection, changes: Changes) -> None:
    """The last statement of a transaction, and always in one order: transactions wait here for each other, and for
    nothing that comes after."""
    rows = [
        {"account_id": account_id, "endpoint_name": endpoint_name, "status": status.value, "change": change}
        for (account_id, endpoint_name, status), change in sorted(changes.items())
        if change
    ]
    if rows:
        await connection.execute(_add_to_counts, rows)


def _endpoints(
    *statuses: Status, account_id: str | None = None, endpoint_name: str | None = None
) -> Subquery:
    """The endpoints that have invocations in one of these statuses, and their `number`."""
    query = select(
        counts.c.account_id,
        counts.c.endpoint_name,
        cast(func.sum(counts.c.number), BigInteger).label("number"),
    )
    query = query.where(counts.c.status.in_([status.value for status in statuses]), counts.c.number > 0)
    if account_id is not None:
        query = query.where(counts.c.account_id == account_id)
    if endpoint_name is not None:
        query = query.where(counts.c.endpoint_name == endpoint_name)
    return query.group_by(counts.c.account_id, counts.c.endpoint_name).subquery("endpoints")


def _of(endpoints: Subquery) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (
        table.c.account_id == endpoints.c.account_id,
        table.c.endpoint_name == endpoints.c.endpoint_name,
    )


def _oldest(endpoints: Subquery) -> ColumnElement[datetime]:
    """When the first that is unfinished was received. They are numbered as they are received."""
    return (
        select(table.c.received_time)
        .where(_unfinished, *_of(endpoints))
        .order_by(table.c.sequence)
        .limit(1)
        .scalar_subquery()
    )


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return and_(table.c.invocation_id == claim.invocation.invocation_id, table.c.token == claim.token)


def _identity(claim: Claim) -> tuple[str, str]:
    return claim.invocation.invocation_id, claim.token


async def _lock_held(connection: AsyncConnection, claims: Collection[Claim]) -> dict[tuple[str, str], int]:
    """The sequences of those claims that were not lost, by id and token; nobody can take them before the transaction
    ends."""
    query = (
        select(table.c.invocation_id, table.c.token, table.c.sequence)
        .where(table.c.invocation_id.in_([claim.invocation.invocation_id for claim in claims]), _running)
        .with_for_update()
    )
    asked = {_identity(claim) for claim in claims}
    return {
        identity: row.sequence
        for row in await connection.execute(query)
        if (identity := (row.invocation_id, row.token)) in asked
    }


def _has_status(status: Status) -> ColumnElement[bool]:
    if status is Status.QUEUED:
        return _queued
    if status is Status.RUNNING:
        return _running
    return and_(_finished, table.c.status == status.value)


def _status(status: str | None, *, held: bool) -> Status:
    if status is not None:
        return Status(status)
    return Status.RUNNING if held else Status.QUEUED


def _to_row(invocation: AsyncInvocation, *, claim_after: datetime) -> dict[str, Any]:
    return {
        "invocation_id": invocation.invocation_id,
        "account_id": invocation.account_id,
        "endpoint_name": invocation.endpoint_name,
        "inference_id": invocation.inference_id,
        "received_time": invocation.received_time,
        "expires_time": invocation.expires_time,
        "request": {
            name: value for name in _IN_REQUEST if (value := getattr(invocation, name)) not in (None, ())
        },
        "claim_after": claim_after,
        "attempts": 0,
        "deaths": 0,
    }


def _to_invocation(row: Row[Any], body: bytes | None = None) -> AsyncInvocation:
    request = dict(row.request)
    return AsyncInvocation(
        invocation_id=row.invocation_id,
        account_id=row.account_id,
        endpoint_name=row.endpoint_name,
        inference_id=row.inference_id,
        received_time=row.received_time,
        expires_time=row.expires_time,
        body=body,
        include_response_in=tuple(request.pop("include_response_in", ())),
        **request,
    )


def _to_claim(row: Row[Any], body: bytes | None, token: str, now: datetime) -> Claim:
    return Claim(
        invocation=_to_invocation(row, body),
        token=token,
        attempt=row.attempts + 1,
        deaths=row.deaths,
        first_claimed_time=row.first_claimed_time or now,
        retrying_since=row.retrying_since,
    )


def _to_record(row: Row[Any]) -> Record:
    return Record(
        invocation=_to_invocation(row),
        status=_status(row.status, held=row.token is not None),
        attempts=row.attempts,
        deaths=row.deaths,
        first_claimed_time=row.first_claimed_time,
        finished_time=row.finished_time,
        reason=row.reason,
    )
