"""The tables, and the column types that mean the same in SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Dialect, Index, MetaData, String, Table, Text, TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time with microseconds. SQLite has no such type: there it is UTC as text that sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_key(length: int) -> String:
    """Text that compares by code point, so that pages come in the same order from every database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


metadata = MetaData()


def _resource_columns() -> list[Column[Any]]:
    return [
        Column("account_id", text_key(12), primary_key=True),
        Column("name", text_key(63), primary_key=True),
        Column("arn", text_key(2048), nullable=False, unique=True),
        Column("creation_time", UtcDateTime, nullable=False),
        Column("definition", JSON, nullable=False),
        Column("tags", JSON, nullable=False),
    ]


def _by_creation_time(table: str) -> Index:
    return Index(f"{table}_by_creation_time", "account_id", "creation_time", "name")


models = Table("models", metadata, *_resource_columns(), _by_creation_time("models"))

endpoint_configs = Table(
    "endpoint_configs", metadata, *_resource_columns(), _by_creation_time("endpoint_configs")
)

endpoints = Table(
    "endpoints",
    metadata,
    *_resource_columns(),
    Column("status", text_key(32), nullable=False),
    Column("endpoint_config_name", text_key(63), nullable=False),
    Column("deployment_id", text_key(64)),
    Column("target_config_name", text_key(63)),
    Column("target_deployment_id", text_key(64)),
    Column("last_modified_time", UtcDateTime, nullable=False),
    Column("failure_reason", Text),
    Column("deployed", JSON(none_as_null=True)),
    _by_creation_time("endpoints"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", text_key(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Random values that every process on this database must share, such as the key that signs page tokens."""
