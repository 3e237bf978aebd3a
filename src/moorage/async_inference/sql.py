"""The queue in the database: one lease table, the same statements on SQLite and PostgreSQL.

An unfinished invocation has a time from which it can be claimed (`claim_after`). Claiming moves that time to the end
of the lease; a pause before another attempt moves it too. So what waits, what is delayed and what a dead dispatcher
left behind are found by one index, in the order in which they became due, however many there are.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.async_inference.base import (
    AsyncInvocation,
    Backlog,
    Claim,
    Notice,
    Outcome,
    Record,
    Status,
    Unfinished,
)
from moorage.async_inference.group_commit import GroupCommit
from moorage.async_inference.outbox import insert_notices
from moorage.storage.database import Database
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
    "include_response_in",
)
"""The fields of an invocation that no statement asks for: they share one column."""

_unfinished = table.c.finished_time.is_(None)
_COLUMNS_WITHOUT_BODY = [column for column in table.c if column.name != "body"]

_insert = insert(table)
_lease = (
    update(table)
    .where(table.c.sequence.in_(bindparam("sequences", expanding=True)))
    .values(
        token=bindparam("new_token"),
        claim_after=bindparam("until"),
        attempts=table.c.attempts + 1,
        first_claimed_time=func.coalesce(
            table.c.first_claimed_time, bindparam("now", type_=table.c.first_claimed_time.type)
        ),
    )
)
_finish = (
    update(table)
    .where(table.c.invocation_id == bindparam("id"))
    .values(
        token=None,
        finished_time=bindparam("at"),
        status=bindparam("final_status"),
        reason=bindparam("final_reason"),
    )
)


class SqlQueue:
    """Implements `moorage.async_inference.base.Queue`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._put: GroupCommit[AsyncInvocation, None] = GroupCommit(self._put_batch)
        self._finish: GroupCommit[tuple[Claim, Outcome], bool] = GroupCommit(self._finish_batch)

    async def put(self, invocation: AsyncInvocation) -> None:
        await self._put(invocation)

    async def settled(self) -> None:
        await self._put.settled()

    async def _put_batch(self, invocations: Sequence[AsyncInvocation]) -> Sequence[None]:
        async with self._database.write() as connection:
            await connection.execute(_insert, [_to_row(invocation) for invocation in invocations])
        return [None] * len(invocations)

    # --- leases ---------------------------------------------------------------------------------------

    async def claim(
        self, account_id: str, endpoint_name: str, *, most: int, lease_seconds: float
    ) -> Sequence[Claim]:
        now = _now()
        query = (
            _claimable(now)
            .where(table.c.account_id == account_id, table.c.endpoint_name == endpoint_name)
            .order_by(table.c.claim_after, table.c.sequence)
        )
        return await self._claim(query, now, most, lease_seconds)

    async def claim_expired(self, *, most: int, lease_seconds: float) -> Sequence[Claim]:
        now = _now()
        query = _claimable(now).where(table.c.expires_time <= now).order_by(table.c.expires_time)
        return await self._claim(query, now, most, lease_seconds)

    async def take(self, account_id: str, invocation_id: str, *, lease_seconds: float) -> Claim | None:
        now = _now()
        query = (
            select(table)
            .where(_unfinished, or_(table.c.token.is_(None), table.c.claim_after <= now))
            .where(table.c.account_id == account_id, table.c.invocation_id == invocation_id)
        )
        claims = await self._claim(query, now, 1, lease_seconds)
        return claims[0] if claims else None

    async def _claim(
        self, query: Select[Any], now: datetime, most: int, lease_seconds: float
    ) -> Sequence[Claim]:
        token = str(uuid.uuid4())
        async with self._database.write() as connection:
            rows = (await connection.execute(query.limit(most).with_for_update(skip_locked=True))).all()
            if rows:
                parameters = {
                    "sequences": [row.sequence for row in rows],
                    "new_token": token,
                    "until": now + timedelta(seconds=lease_seconds),
                    "now": now,
                }
                await connection.execute(_lease, parameters)
        return [_to_claim(row, token, now) for row in rows]

    async def extend(self, claims: Collection[Claim], *, lease_seconds: float) -> set[str]:
        async with self._database.write() as connection:
            held = {id for id, _ in await _held(connection, claims)}
            await connection.execute(
                update(table)
                .where(table.c.invocation_id.in_(held))
                .values(claim_after=_now() + timedelta(seconds=lease_seconds))
            )
        return held

    async def release(
        self,
        claim: Claim,
        *,
        delay_seconds: float = 0.0,
        died: bool = False,
        retrying_since: datetime | None = None,
        unattempted: bool = False,
    ) -> bool:
        changes: dict[str, Any] = {
            "token": None,
            "claim_after": _now() + timedelta(seconds=delay_seconds),
            "retrying_since": retrying_since,
        }
        if not delay_seconds:
            changes["claim_after"] = claim.invocation.received_time  # to the front, where it was
        if died:
            changes["deaths"] = table.c.deaths + 1
        if unattempted:
            changes["attempts"] = table.c.attempts - 1
        async with self._database.write() as connection:
            result = await connection.execute(update(table).where(_is_held(claim)).values(changes))
        return result.rowcount == 1

    async def finish(self, claim: Claim, outcome: Outcome) -> bool:
        return await self._finish((claim, outcome))

    async def _finish_batch(self, batch: Sequence[tuple[Claim, Outcome]]) -> Sequence[bool]:
        finished = []
        async with self._database.write() as connection:
            held = await _held(connection, [claim for claim, _ in batch])
            rows: list[dict[str, Any]] = []
            notices: list[Notice] = []
            for claim, outcome in batch:
                finished.append(_identity(claim) in held)
                if finished[-1]:
                    held.discard(_identity(claim))
                    notices += outcome.notices
                    rows.append(
                        {
                            "id": claim.invocation.invocation_id,
                            "at": outcome.finished_time,
                            "final_status": outcome.status.value,
                            "final_reason": outcome.reason,
                        }
                    )
            if rows:
                await connection.execute(_finish, rows)
            if notices:
                await insert_notices(connection, notices, _now())
        return finished

    async def next_claimable(self, account_id: str, endpoint_name: str) -> datetime | None:
        query = (
            select(table.c.claim_after)
            .where(_unfinished, table.c.account_id == account_id, table.c.endpoint_name == endpoint_name)
            .order_by(table.c.claim_after)
            .limit(1)
        )
        return await self._scalar(query)

    async def next_expiry(self) -> datetime | None:
        query = (
            select(table.c.expires_time)
            .where(_unfinished, table.c.expires_time > _now())
            .order_by(table.c.expires_time)
            .limit(1)
        )
        return await self._scalar(query)

    # --- for people -----------------------------------------------------------------------------------

    async def backlogged(self) -> Sequence[tuple[str, str]]:
        query = select(table.c.account_id, table.c.endpoint_name).where(_unfinished).distinct()
        async with self._database.read() as connection:
            return [(row.account_id, row.endpoint_name) for row in await connection.execute(query)]

    async def unfinished(self) -> Sequence[Unfinished]:
        query = (
            select(
                table.c.account_id,
                table.c.endpoint_name,
                func.count().label("number"),
                func.min(table.c.received_time).label("oldest"),
            )
            .where(_unfinished)
            .group_by(table.c.account_id, table.c.endpoint_name)
        )
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
        ]

    async def backlogs(self, account_id: str) -> Sequence[Backlog]:
        minute_ago = _now() - timedelta(minutes=1)
        query = (
            select(
                table.c.endpoint_name,
                table.c.status,
                table.c.token.is_not(None).label("held"),
                func.count().label("number"),
                func.min(table.c.received_time).label("oldest"),
                func.count().filter(table.c.received_time >= minute_ago).label("received"),
                func.count().filter(table.c.finished_time >= minute_ago).label("finished"),
            )
            .where(table.c.account_id == account_id)
            .group_by(table.c.endpoint_name, table.c.status, table.c.token.is_not(None))
            .order_by(table.c.endpoint_name)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            _to_backlog(account_id, name, [row for row in rows if row.endpoint_name == name])
            for name in dict.fromkeys(row.endpoint_name for row in rows)
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
        query = select(*_COLUMNS_WITHOUT_BODY).where(table.c.account_id == account_id)
        if endpoint_name is not None:
            query = query.where(table.c.endpoint_name == endpoint_name)
        if status is not None:
            query = query.where(_has_status(status))
        if before is not None:
            query = query.where(table.c.sequence < before)
        query = query.order_by(table.c.sequence.desc()).limit(most)
        async with self._database.read() as connection:
            return [(row.sequence, _to_record(row)) for row in await connection.execute(query)]

    async def find(self, account_id: str, id: str) -> Sequence[Record]:
        query = (
            select(*_COLUMNS_WITHOUT_BODY)
            .where(table.c.account_id == account_id)
            .where(or_(table.c.invocation_id == id, table.c.inference_id == id))
            .order_by(table.c.sequence.desc())
            .limit(100)
        )
        async with self._database.read() as connection:
            return [_to_record(row) for row in await connection.execute(query)]

    async def requeue(self, account_id: str, invocation_id: str, *, expires_time: datetime) -> bool:
        # The attempts stay: they tell the next one that there may be objects of earlier ones.
        statement = (
            update(table)
            .where(table.c.account_id == account_id, table.c.invocation_id == invocation_id)
            .where(table.c.status.in_((Status.FAILED.value, Status.EXPIRED.value)))
            .values(
                finished_time=None,
                status=None,
                reason=None,
                deaths=0,
                retrying_since=None,
                claim_after=_now(),
                expires_time=expires_time,
            )
        )
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def purge(
        self, *, finished_before: datetime, account_id: str | None = None, endpoint_name: str | None = None
    ) -> int:
        statement = delete(table).where(table.c.finished_time < finished_before)
        if account_id is not None:
            statement = statement.where(table.c.account_id == account_id)
        if endpoint_name is not None:
            statement = statement.where(table.c.endpoint_name == endpoint_name)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount

    async def _scalar(self, query: Select[tuple[datetime]]) -> datetime | None:
        async with self._database.read() as connection:
            time: datetime | None = await connection.scalar(query)
            return time


def _now() -> datetime:
    return datetime.now(UTC)


def _claimable(now: datetime) -> Select[Any]:
    return select(table).where(_unfinished, table.c.claim_after <= now)


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return and_(
        table.c.invocation_id == claim.invocation.invocation_id, table.c.token == claim.token, _unfinished
    )


def _identity(claim: Claim) -> tuple[str, str]:
    return claim.invocation.invocation_id, claim.token


async def _held(connection: AsyncConnection, claims: Collection[Claim]) -> set[tuple[str, str]]:
    """Those of the claims that were not lost, by id and token; nobody can take them before the transaction ends."""
    query = (
        select(table.c.invocation_id, table.c.token)
        .where(table.c.invocation_id.in_([claim.invocation.invocation_id for claim in claims]), _unfinished)
        .with_for_update()
    )
    held = {(row.invocation_id, row.token) for row in await connection.execute(query)}
    return held & {_identity(claim) for claim in claims}


def _has_status(status: Status) -> ColumnElement[bool]:
    if status is Status.QUEUED:
        return and_(_unfinished, table.c.token.is_(None))
    if status is Status.RUNNING:
        return and_(_unfinished, table.c.token.is_not(None))
    return table.c.status == status.value


def _status(status: str | None, *, held: bool) -> Status:
    if status is not None:
        return Status(status)
    return Status.RUNNING if held else Status.QUEUED


def _to_row(invocation: AsyncInvocation) -> dict[str, Any]:
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
        "body": invocation.body,
        "claim_after": invocation.received_time,
        "attempts": 0,
        "deaths": 0,
    }


def _to_invocation(row: Row[Any]) -> AsyncInvocation:
    request = dict(row.request)
    return AsyncInvocation(
        invocation_id=row.invocation_id,
        account_id=row.account_id,
        endpoint_name=row.endpoint_name,
        inference_id=row.inference_id,
        received_time=row.received_time,
        expires_time=row.expires_time,
        body=getattr(row, "body", None),
        include_response_in=tuple(request.pop("include_response_in", ())),
        **request,
    )


def _to_claim(row: Row[Any], token: str, now: datetime) -> Claim:
    return Claim(
        invocation=_to_invocation(row),
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


def _to_backlog(account_id: str, endpoint_name: str, rows: Sequence[Row[Any]]) -> Backlog:
    counts = {_status(row.status, held=row.held): row.number for row in rows}
    waiting = [row.oldest for row in rows if row.status is None]
    return Backlog(
        account_id=account_id,
        endpoint_name=endpoint_name,
        counts=counts,
        oldest_received_time=min(waiting, default=None),
        received_last_minute=sum(row.received for row in rows),
        finished_last_minute=sum(row.finished for row in rows),
    )
