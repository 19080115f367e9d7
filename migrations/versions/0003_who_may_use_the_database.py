"""Which releases may use the database, and how far back-fills have come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "compatibility",
        sa.Column("schema", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("oldest_schema", sa.BigInteger(), nullable=False),
        sa.Column("oldest_release", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("schema", name=op.f("pk_compatibility")),
    )
    op.create_table(
        "backfills",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("done_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_backfills")),
    )


def downgrade() -> None:
    op.drop_table("backfills")
    op.drop_table("compatibility")
