"""The lease of the controller that leads. Its table keeps this shape: a newer version reads it before it migrates."""

import sqlalchemy as sa
from alembic import op

from moorage.storage.schema import UtcDateTime, text_key

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    leases = op.create_table(
        "leases",
        sa.Column("name", text_key(32), primary_key=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("renewals", sa.BigInteger(), nullable=False),
        sa.Column("lease_seconds", sa.Float(), nullable=False),
        sa.Column("installation", text_key(128)),
        sa.Column("holder", text_key(36)),
        sa.Column("host", sa.Text()),
        sa.Column("pid", sa.Integer()),
        sa.Column("acquired_time", UtcDateTime()),
        sa.Column("renewed_time", UtcDateTime()),
    )
    op.create_index("leases_by_epoch", "leases", ["name", "epoch"], unique=True)
    op.bulk_insert(leases, [{"name": "controller", "epoch": 0, "renewals": 0, "lease_seconds": 0.0}])
