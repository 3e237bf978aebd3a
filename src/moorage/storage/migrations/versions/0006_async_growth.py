"""Asynchronous invocations: their bodies apart, counts by status, and indexes for each state; notices by topic.

Takes time for each invocation that is kept: a million with bodies of 1 kB took 50 s in SQLite, on a busy machine. The
bodies of completed ones are dropped; the file keeps its size, and what they took is used for what comes.
"""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import text_key

revision = "0006"
down_revision = "0005"

_QUEUED = "finished_time IS NULL AND token IS NULL"
_UNFINISHED = "finished_time IS NULL"
_FINISHED = "finished_time IS NOT NULL"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        op.execute("PRAGMA cache_size = -131072")  # 128 MiB: with the default, 2 MiB, it takes twice as long
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "async_bodies",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.execute(
        "INSERT INTO async_bodies (sequence, body) SELECT sequence, body FROM async_invocations "
        "WHERE body IS NOT NULL AND (finished_time IS NULL OR status <> 'Completed')"
    )
    for name in ("claimable", "expiring", "by_endpoint", "finished"):
        op.drop_index(f"async_invocations_{name}", "async_invocations")
    op.execute("ALTER TABLE async_invocations DROP COLUMN body")

    _index("queued", _QUEUED, "account_id", "endpoint_name", "claim_after", "sequence", "received_time")
    _index("expiring", _QUEUED, "expires_time")
    _index("running", "token IS NOT NULL", "account_id", "endpoint_name", "sequence")
    _index("unfinished", _UNFINISHED, "account_id", "endpoint_name", "sequence")
    _index("unfinished_by_account", _UNFINISHED, "account_id", "sequence")
    _index("finished", _FINISHED, "finished_time", "account_id", "endpoint_name", "received_time")
    _index("ended", _FINISHED, "account_id", "endpoint_name", "status", "sequence")
    _index("ended_by_account", _FINISHED, "account_id", "status", "sequence")

    op.create_table(
        "async_counts",
        sa.Column("account_id", text_key(12), primary_key=True),
        sa.Column("endpoint_name", text_key(63), primary_key=True),
        sa.Column("status", text_key(16), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
    for status, condition in (
        ("status", _FINISHED),
        ("CASE WHEN token IS NULL THEN 'Queued' ELSE 'Running' END", _UNFINISHED),
    ):
        op.execute(
            "INSERT INTO async_counts (account_id, endpoint_name, status, number) "
            f"SELECT account_id, endpoint_name, {status}, count(*) "
            f"FROM async_invocations WHERE {condition} GROUP BY 1, 2, 3"
        )
    op.drop_index("async_notices_by_send_after", "async_notices")
    op.create_index("async_notices_to_send", "async_notices", ["topic_arn", "send_after", "sequence"])
    op.create_index("async_notices_by_age", "async_notices", ["topic_arn", "created_time"])
    if sqlite:
        op.execute("PRAGMA cache_size = -2000")


def _index(name: str, condition: str, *columns: str) -> None:
    where = sa.text(condition)
    op.create_index(
        f"async_invocations_{name}",
        "async_invocations",
        list(columns),
        sqlite_where=where,
        postgresql_where=where,
    )
