"""The tables, and the column types that mean the same in SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)


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

endpoint_policies = Table(
    "endpoint_policies",
    metadata,
    Column("arn", text_key(2048), ForeignKey("endpoints.arn", ondelete="CASCADE"), primary_key=True),
    Column("document", Text, nullable=False),
)
"""Resource-based policies: an endpoint has one at most, which goes with it."""

bucket_policies = Table(
    "bucket_policies",
    metadata,
    Column("bucket", text_key(255), primary_key=True),
    Column("account_id", text_key(12), nullable=False),
    Column("document", Text, nullable=False),
)
"""Policies of buckets of the embedded S3, of which only that S3 knows whether they are there; `account_id` owned the
bucket when the policy was put."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", text_key(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Random values that every process on this database must share, such as the key that signs page tokens."""

leases = Table(
    "leases",
    metadata,
    Column("name", text_key(32), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("renewals", BigInteger, nullable=False),
    Column("lease_seconds", Float, nullable=False),
    Column("installation", text_key(128)),
    Column("holder", text_key(36)),
    Column("host", Text),
    Column("pid", Integer),
    Column("acquired_time", UtcDateTime),
    Column("renewed_time", UtcDateTime),
    Index("leases_by_epoch", "name", "epoch", unique=True),
)
"""Who leads, see `moorage.storage.lease`; one row, `controller`. The times are the database's, for people only. The
unique index makes a new epoch a change of the row's key for PostgreSQL: it waits for transactions that have the row
FOR KEY SHARE, and renewals do not."""


def _partial(name: str, condition: str, *columns: str) -> Index:
    """An index of the rows of `async_invocations` that meet a condition."""
    where = text(condition)
    return Index(f"async_invocations_{name}", *columns, sqlite_where=where, postgresql_where=where)


_UNFINISHED = "finished_time IS NULL"
_QUEUED = "finished_time IS NULL AND token IS NULL"
_FINISHED = "finished_time IS NOT NULL"
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

async_invocations = Table(
    "async_invocations",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("invocation_id", text_key(36), nullable=False, unique=True),
    Column("account_id", text_key(12), nullable=False),
    Column("endpoint_name", text_key(63), nullable=False),
    Column("inference_id", text_key(64), nullable=False),
    Column("received_time", UtcDateTime, nullable=False),
    Column("expires_time", UtcDateTime, nullable=False),
    Column("request", JSON, nullable=False),
    Column("claim_after", UtcDateTime, nullable=False),
    Column("token", text_key(36)),
    Column("attempts", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("first_claimed_time", UtcDateTime),
    Column("retrying_since", UtcDateTime),
    Column("finished_time", UtcDateTime),
    Column("status", text_key(16)),
    Column("reason", Text),
    Index("async_invocations_by_inference_id", "account_id", "inference_id"),
    _partial("queued", _QUEUED, "account_id", "endpoint_name", "claim_after", "sequence", "received_time"),
    _partial("expiring", _QUEUED, "expires_time"),
    _partial("running", "token IS NOT NULL", "account_id", "endpoint_name", "sequence"),
    _partial("unfinished", _UNFINISHED, "account_id", "endpoint_name", "sequence"),
    _partial("unfinished_by_account", _UNFINISHED, "account_id", "sequence"),
    _partial("finished", _FINISHED, "finished_time", "account_id", "endpoint_name", "received_time"),
    _partial("ended", _FINISHED, "account_id", "endpoint_name", "status", "sequence"),
    _partial("ended_by_account", _FINISHED, "account_id", "status", "sequence"),
)
"""The queue of asynchronous invocations. One is queued, and can be claimed from `claim_after` on (by the queue's
clock, see `moorage.clock`); or running, which means that a `token` holds it; or finished, and has a `status`."""

async_bodies = Table(
    "async_bodies",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)
"""The bodies that came with invocations, by the invocation's `sequence`. One goes when its invocation is completed,
or forgotten. They are apart because SQLite reads and writes all of a row to change any of it."""

async_counts = Table(
    "async_counts",
    metadata,
    Column("account_id", text_key(12), primary_key=True),
    Column("endpoint_name", text_key(63), primary_key=True),
    Column("status", text_key(16), primary_key=True),
    Column("number", BigInteger, nullable=False),
)
"""How many invocations of an endpoint there are in each status, `Queued` and `Running` included. Changed in the
transactions that change the invocations, so that the sums are always right; a row may be 0."""

async_notices = Table(
    "async_notices",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("account_id", text_key(12), nullable=False),
    Column("topic_arn", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("invocation_id", text_key(36)),
    Column("created_time", UtcDateTime, nullable=False),
    Column("send_after", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Index("async_notices_to_send", "topic_arn", "send_after", "sequence"),
    Index("async_notices_by_age", "topic_arn", "created_time"),
)
"""Messages that are owed to topics; a row goes when its message has been delivered or given up."""

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", text_key(12), primary_key=True),
    Column("name", text_key(256), nullable=False),
    Column("created", UtcDateTime, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("identity_id", text_key(32), primary_key=True),
    Column("account_id", text_key(12), ForeignKey("accounts.account_id"), nullable=False),
    Column("kind", text_key(8), nullable=False),
    Column("name", text_key(64), nullable=False),
    Column("name_key", text_key(64), nullable=False),
    Column("path", text_key(512), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("trust_policy", Text),
    Column("description", Text),
    Column("max_session_seconds", Integer),
    Index("identities_by_name", "account_id", "kind", "name_key", unique=True),
)
"""Users and roles (`kind`). `name_key` is the name in lower case: names that differ in case only are one."""

access_keys = Table(
    "access_keys",
    metadata,
    Column("access_key_id", text_key(32), primary_key=True),
    Column("account_id", text_key(12), ForeignKey("accounts.account_id"), nullable=False),
    Column("identity_id", text_key(32), ForeignKey("identities.identity_id")),
    Column("status", text_key(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("sealed_secret", Text, nullable=False),
    Index("access_keys_by_identity", "account_id", "identity_id"),
)
"""The root's keys have no `identity_id`."""

managed_policies = Table(
    "managed_policies",
    metadata,
    Column("policy_id", text_key(32), primary_key=True),
    Column("account_id", text_key(12), ForeignKey("accounts.account_id"), nullable=False),
    Column("name", text_key(128), nullable=False),
    Column("name_key", text_key(128), nullable=False),
    Column("path", text_key(512), nullable=False),
    Column("arn", text_key(2048), nullable=False, unique=True),
    Column("description", Text),
    Column("document", Text, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("tags", JSON, nullable=False),
    Index("managed_policies_by_name", "account_id", "name_key", unique=True),
)

inline_policies = Table(
    "inline_policies",
    metadata,
    Column("identity_id", text_key(32), ForeignKey("identities.identity_id"), primary_key=True),
    Column("name", text_key(128), primary_key=True),
    Column("document", Text, nullable=False),
)

attachments = Table(
    "attachments",
    metadata,
    Column("identity_id", text_key(32), ForeignKey("identities.identity_id"), primary_key=True),
    Column("policy_arn", text_key(2048), primary_key=True),
    Index("attachments_by_policy", "policy_arn"),
)
"""Managed policies, those of AWS included, that identities have."""
