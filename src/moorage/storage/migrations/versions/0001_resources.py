"""Models, endpoint configs and endpoints."""

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import UtcDateTime, text_key

revision = "0001"
down_revision = None


def upgrade() -> None:
    for table in ("models", "endpoint_configs", "endpoints"):
        op.create_table(
            table,
            sa.Column("account_id", text_key(12), primary_key=True),
            sa.Column("name", text_key(63), primary_key=True),
            sa.Column("arn", text_key(2048), nullable=False, unique=True),
            sa.Column("creation_time", UtcDateTime(), nullable=False),
            sa.Column("definition", sa.JSON(), nullable=False),
            sa.Column("tags", sa.JSON(), nullable=False),
            *(_endpoint_columns() if table == "endpoints" else ()),
        )
        op.create_index(f"{table}_by_creation_time", table, ["account_id", "creation_time", "name"])
    secrets_table = op.create_table(
        "secrets",
        sa.Column("name", text_key(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.bulk_insert(secrets_table, [{"name": "page-token-key", "value": secrets.token_hex(32)}])


def _endpoint_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("status", text_key(32), nullable=False),
        sa.Column("endpoint_config_name", text_key(63), nullable=False),
        sa.Column("deployment_id", text_key(64)),
        sa.Column("target_config_name", text_key(63)),
        sa.Column("target_deployment_id", text_key(64)),
        sa.Column("last_modified_time", UtcDateTime(), nullable=False),
        sa.Column("failure_reason", sa.Text()),
        sa.Column("deployed", sa.JSON()),
    ]
