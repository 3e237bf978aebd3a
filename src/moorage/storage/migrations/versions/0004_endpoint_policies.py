"""Resource-based policies of endpoints."""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import text_key

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "endpoint_policies",
        sa.Column(
            "arn", text_key(2048), sa.ForeignKey("endpoints.arn", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("document", sa.Text(), nullable=False),
    )
