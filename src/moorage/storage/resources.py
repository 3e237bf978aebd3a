"""The store on SQL."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack

from sqlalchemy import (
    ColumnElement,
    Row,
    RowMapping,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.resources import Endpoint, EndpointConfig, EndpointStatus, Model
from moorage.storage import page_token, schema
from moorage.storage.base import EndpointChanges, ListQuery, Page, R, Resource, Tags
from moorage.storage.database import Database

_TABLES: Mapping[type[Any], Table] = {
    Model: schema.models,
    EndpointConfig: schema.endpoint_configs,
    Endpoint: schema.endpoints,
}
_TABLES_BY_KIND = {
    "model": schema.models,
    "endpoint-config": schema.endpoint_configs,
    "endpoint": schema.endpoints,
}
_POLICIES = schema.endpoint_policies
_SORT_COLUMNS = {"Name": "name", "CreationTime": "creation_time", "Status": "status"}


class SqlResourceStore:
    """The `ResourceStore` on a `Database`, which the caller closes.

    `on_policies_change` is called after each committed change that may be one of the endpoints' policies, and
    `on_tags_change`, with the endpoint's ARN, after one of its tags.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_policies_change: Callable[[], None] = lambda: None,
        on_tags_change: Callable[[str], None] = lambda arn: None,
    ) -> None:
        self._database = database
        self._on_policies_change = on_policies_change
        self._on_tags_change = on_tags_change

    async def create(self, resource: Resource, tags: Tags) -> bool:
        values = {field.name: getattr(resource, field.name) for field in dataclasses.fields(resource)}
        statement = insert(_TABLES[type(resource)]).values(**values, tags=dict(tags))
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
        except IntegrityError:
            return False
        if isinstance(resource, Endpoint) and tags:
            self._on_tags_change(resource.arn)
        return True

    async def get(self, kind: type[R], account_id: str, name: str) -> R | None:
        rows = await self._database.rows(_BY_NAME[kind], account_id=account_id, name=name)
        return _resource(kind, rows[0]._mapping) if rows else None

    async def page(self, kind: type[R], account_id: str, query: ListQuery) -> Page[R]:
        key = self._database.page_token_key
        after = page_token.decode(key, kind, account_id, query)
        rows = await self._rows(_page_statement(kind, account_id, query, after), quick=_is_indexed(query))
        items = tuple(_resource(kind, row._mapping) for row in rows[: query.max_results])
        if len(rows) <= query.max_results:
            return Page(items=items, next_token=None)
        last = (_sort_key(items[-1], query), items[-1].name)
        return Page(items=items, next_token=page_token.encode(key, kind, account_id, query, last))

    async def _rows(self, statement: Select[Any], *, quick: bool) -> Sequence[Row[Any]]:
        if quick:
            return await self._database.rows(statement)
        async with self._database.read() as connection:
            rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
        return rows

    async def all_endpoints(self) -> tuple[Endpoint, ...]:
        async with self._database.read() as connection:
            rows = (await connection.execute(_select(Endpoint))).mappings().all()
        return tuple(_resource(Endpoint, row) for row in rows)

    async def endpoint_statuses(self) -> Mapping[tuple[str, EndpointStatus], int]:
        columns = schema.endpoints.c.account_id, schema.endpoints.c.status
        query = select(*columns, func.count().label("number")).group_by(*columns)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {(row.account_id, EndpointStatus(row.status)): row.number for row in rows}

    async def endpoint_of(self, arn: str) -> Endpoint | None:
        rows = await self._database.rows(_BY_ARN, arn=arn)
        return _resource(Endpoint, rows[0]._mapping) if rows else None

    async def delete(self, resource: Resource) -> bool:
        table = _TABLES[type(resource)]
        async with self._database.write() as connection:
            result = await connection.execute(delete(table).where(*_is(table, resource)))
        if isinstance(resource, Endpoint):
            self._on_policies_change()
            self._on_tags_change(resource.arn)
        return result.rowcount == 1

    async def transition(
        self, endpoint: Endpoint, expected: Collection[EndpointStatus], **changes: Unpack[EndpointChanges]
    ) -> Endpoint | None:
        columns = schema.endpoints.c
        changes.setdefault("last_modified_time", datetime.now(UTC))
        statement = (
            update(schema.endpoints)
            .where(
                *_is(schema.endpoints, endpoint),
                columns.status.in_(expected),
                columns.deployment_id.is_not_distinct_from(endpoint.deployment_id),
                columns.target_deployment_id.is_not_distinct_from(endpoint.target_deployment_id),
            )
            .values(**changes)
            .returning(*_columns(Endpoint))
        )
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _resource(Endpoint, row)

    async def get_tags(self, arn: str) -> Tags | None:
        return (await self.tags_and_policy(arn))[0]

    async def update_tags(self, arn: str, change: Callable[[Tags], Tags]) -> Tags | None:
        table = _table_of_arn(arn)
        if table is None:
            return None
        async with self._database.write() as connection:
            # Locked until the commit, so that no other change is lost (SQLite: the transaction has the lock).
            present = await _tags(
                connection, select(table.c.tags).where(table.c.arn == arn).with_for_update()
            )
            if present is None:
                return None
            tags = dict(change(present))
            await connection.execute(update(table).where(table.c.arn == arn).values(tags=tags))
        if table is schema.endpoints:
            self._on_tags_change(arn)
        return tags

    async def put_policy(self, endpoint: Endpoint, document: str, unless: Collection[EndpointStatus]) -> bool:
        async with self._database.write() as connection:
            if await _locked_status(connection, endpoint) in (None, *unless):
                return False
            await connection.execute(delete(_POLICIES).where(_POLICIES.c.arn == endpoint.arn))
            await connection.execute(insert(_POLICIES).values(arn=endpoint.arn, document=document))
        self._on_policies_change()
        return True

    async def delete_policy(self, endpoint: Endpoint) -> None:
        async with self._database.write() as connection:
            if await _locked_status(connection, endpoint) is None:
                return
            await connection.execute(delete(_POLICIES).where(_POLICIES.c.arn == endpoint.arn))
        self._on_policies_change()

    async def get_policy(self, arn: str) -> str | None:
        return (await self.tags_and_policy(arn))[1]

    async def tags_and_policy(self, arn: str) -> tuple[Tags | None, str | None]:
        table = _table_of_arn(arn)
        rows = () if table is None else await self._database.rows(_TAGS_AND_POLICY[table.name], arn=arn)
        return (rows[0].tags, rows[0].document) if rows else (None, None)

    async def all_policies(self) -> Mapping[str, str]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(_POLICIES.c.arn, _POLICIES.c.document))
            return {row.arn: row.document for row in rows}

    async def all_endpoint_tags(self) -> Mapping[str, Tags]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(schema.endpoints.c.arn, schema.endpoints.c.tags))
            return {row.arn: row.tags for row in rows if row.tags}


def _table_of_arn(arn: str) -> Table | None:
    resource = arn.split(":", 5)[-1]
    return _TABLES_BY_KIND.get(resource.split("/")[0])


async def _tags(connection: AsyncConnection, query: Select[Any]) -> Tags | None:
    tags: Tags | None = (await connection.execute(query)).scalar_one_or_none()
    return tags


async def _locked_status(connection: AsyncConnection, endpoint: Endpoint) -> str | None:
    """None when the endpoint is not there any more. Nobody changes or deletes it before the transaction ends."""
    table = schema.endpoints
    query = select(table.c.status).where(*_is(table, endpoint)).with_for_update()
    status: str | None = await connection.scalar(query)
    return status


def _is(table: Table, resource: Resource) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.account_id == resource.account_id,
        table.c.name == resource.name,
        table.c.creation_time == resource.creation_time,
    )


def _columns(kind: type[Any]) -> tuple[ColumnElement[Any], ...]:
    return tuple(_TABLES[kind].c[field.name] for field in dataclasses.fields(kind))


def _select(kind: type[Any]) -> Select[Any]:
    return select(*_columns(kind))


_BY_NAME = {
    kind: _select(kind).where(
        table.c.account_id == bindparam("account_id"), table.c.name == bindparam("name")
    )
    for kind, table in _TABLES.items()
}
_BY_ARN = _select(Endpoint).where(schema.endpoints.c.arn == bindparam("arn"))
_TAGS_AND_POLICY = {
    table.name: select(table.c.tags, _POLICIES.c.document)
    .select_from(table.outerjoin(_POLICIES, _POLICIES.c.arn == table.c.arn))
    .where(table.c.arn == bindparam("arn"))
    for table in _TABLES.values()
}


def _resource(kind: type[R], row: RowMapping) -> R:
    values: dict[str, Any] = dict(row)
    if "status" in values:
        values["status"] = EndpointStatus(values["status"])
    return kind(**values)


def _page_statement(
    kind: type[Any], account_id: str, query: ListQuery, after: tuple[str, str] | None
) -> Select[Any]:
    """One row more than the page holds: whether it comes tells whether there is a next page."""
    table = _TABLES[kind]
    column = table.c[_SORT_COLUMNS[query.sort_by]]
    descending = query.sort_order == "Descending"
    statement = _select(kind).where(table.c.account_id == account_id, *_filters(table, query))
    if after is not None:
        value: Any = datetime.fromisoformat(after[0]) if query.sort_by == "CreationTime" else after[0]
        name = after[1]
        if descending:
            statement = statement.where(or_(column < value, and_(column == value, table.c.name < name)))
        else:
            statement = statement.where(or_(column > value, and_(column == value, table.c.name > name)))
    order = [key.desc() if descending else key.asc() for key in (column, table.c.name)]
    return statement.order_by(*order).limit(query.max_results + 1)


def _is_indexed(query: ListQuery) -> bool:
    """Whether the first rows of an index are the page; otherwise all of the account's are looked at, or sorted."""
    unfiltered = ListQuery(**{name: getattr(query, name) for name in _OF_EVERY_PAGE})
    return query == unfiltered and query.sort_by != "Status"


_OF_EVERY_PAGE = ("sort_by", "sort_order", "max_results", "next_token")


def _filters(table: Table, query: ListQuery) -> list[ColumnElement[bool]]:
    columns = table.c
    filters: list[ColumnElement[bool]] = []
    if query.name_contains is not None:
        filters.append(func.lower(columns.name).contains(query.name_contains.lower(), autoescape=True))
    if query.creation_time_before is not None:
        filters.append(columns.creation_time < query.creation_time_before)
    if query.creation_time_after is not None:
        filters.append(columns.creation_time >= query.creation_time_after)
    if query.last_modified_time_before is not None:
        filters.append(columns.last_modified_time < query.last_modified_time_before)
    if query.last_modified_time_after is not None:
        filters.append(columns.last_modified_time >= query.last_modified_time_after)
    if query.status_equals is not None:
        filters.append(columns.status == query.status_equals)
    return filters


def _sort_key(item: Resource, query: ListQuery) -> str:
    value = getattr(item, _SORT_COLUMNS[query.sort_by])
    return value.isoformat() if isinstance(value, datetime) else str(value)
