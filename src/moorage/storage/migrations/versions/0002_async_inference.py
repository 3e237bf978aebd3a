"""The queue of asynchronous invocations, and the notices owed of them."""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import UtcDateTime, text_key

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "async_invocations",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=True),
        sa.Column("invocation_id", text_key(36), nullable=False, unique=True),
        sa.Column("account_id", text_key(12), nullable=False),
        sa.Column("endpoint_name", text_key(63), nullable=False),
        sa.Column("inference_id", text_key(64), nullable=False),
        sa.Column("received_time", UtcDateTime(), nullable=False),
        sa.Column("expires_time", UtcDateTime(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("claim_after", UtcDateTime(), nullable=False),
        sa.Column("token", text_key(36)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("first_claimed_time", UtcDateTime()),
        sa.Column("retrying_since", UtcDateTime()),
        sa.Column("finished_time", UtcDateTime()),
        sa.Column("status", text_key(16)),
        sa.Column("reason", sa.Text()),
    )
    _unfinished("claimable", "account_id", "endpoint_name", "claim_after", "sequence")
    _unfinished("expiring", "expires_time")
    _indexed("by_endpoint", "account_id", "endpoint_name", "sequence")
    _indexed("by_inference_id", "account_id", "inference_id")
    _indexed("finished", "finished_time")
    op.create_table(
        "async_notices",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=True),
        sa.Column("account_id", text_key(12), nullable=False),
        sa.Column("topic_arn", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("invocation_id", text_key(36)),
        sa.Column("created_time", UtcDateTime(), nullable=False),
        sa.Column("send_after", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
    )
    op.create_index("async_notices_by_send_after", "async_notices", ["send_after", "sequence"])


def _indexed(name: str, *columns: str) -> None:
    op.create_index(f"async_invocations_{name}", "async_invocations", list(columns))


def _unfinished(name: str, *columns: str) -> None:
    condition = sa.text("finished_time IS NULL")
    op.create_index(
        f"async_invocations_{name}",
        "async_invocations",
        list(columns),
        sqlite_where=condition,
        postgresql_where=condition,
    )
