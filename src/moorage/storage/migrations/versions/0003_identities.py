"""Accounts, users, roles, access keys and policies."""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import UtcDateTime, text_key

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", text_key(12), primary_key=True),
        sa.Column("name", text_key(256), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "identities",
        sa.Column("identity_id", text_key(32), primary_key=True),
        sa.Column("account_id", text_key(12), sa.ForeignKey("accounts.account_id"), nullable=False),
        sa.Column("kind", text_key(8), nullable=False),
        sa.Column("name", text_key(64), nullable=False),
        sa.Column("name_key", text_key(64), nullable=False),
        sa.Column("path", text_key(512), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("trust_policy", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("max_session_seconds", sa.Integer()),
    )
    op.create_index("identities_by_name", "identities", ["account_id", "kind", "name_key"], unique=True)
    op.create_table(
        "access_keys",
        sa.Column("access_key_id", text_key(32), primary_key=True),
        sa.Column("account_id", text_key(12), sa.ForeignKey("accounts.account_id"), nullable=False),
        sa.Column("identity_id", text_key(32), sa.ForeignKey("identities.identity_id")),
        sa.Column("status", text_key(16), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("sealed_secret", sa.Text(), nullable=False),
    )
    op.create_index("access_keys_by_identity", "access_keys", ["account_id", "identity_id"])
    op.create_table(
        "managed_policies",
        sa.Column("policy_id", text_key(32), primary_key=True),
        sa.Column("account_id", text_key(12), sa.ForeignKey("accounts.account_id"), nullable=False),
        sa.Column("name", text_key(128), nullable=False),
        sa.Column("name_key", text_key(128), nullable=False),
        sa.Column("path", text_key(512), nullable=False),
        sa.Column("arn", text_key(2048), nullable=False, unique=True),
        sa.Column("description", sa.Text()),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
    )
    op.create_index("managed_policies_by_name", "managed_policies", ["account_id", "name_key"], unique=True)
    op.create_table(
        "inline_policies",
        sa.Column("identity_id", text_key(32), sa.ForeignKey("identities.identity_id"), primary_key=True),
        sa.Column("name", text_key(128), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "attachments",
        sa.Column("identity_id", text_key(32), sa.ForeignKey("identities.identity_id"), primary_key=True),
        sa.Column("policy_arn", text_key(2048), primary_key=True),
    )
    op.create_index("attachments_by_policy", "attachments", ["policy_arn"])
