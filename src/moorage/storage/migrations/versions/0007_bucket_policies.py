"""Policies of buckets of the embedded S3."""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import text_key

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "bucket_policies",
        sa.Column("bucket", text_key(255), primary_key=True),
        sa.Column("account_id", text_key(12), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
