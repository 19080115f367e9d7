"""The numbers of those who post updates over HTTP, and retry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "producers",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "key", name=op.f("pk_producers")),
        sa.Index("ix_producers_at", "at"),
    )


def downgrade() -> None:
    op.drop_table("producers")
