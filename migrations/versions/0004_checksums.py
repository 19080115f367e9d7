"""Checksums of rows and snapshots, and what was found to be damaged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.add_column("log", sa.Column("checksum", sa.BigInteger(), nullable=True))
    op.add_column("snapshots", sa.Column("checksum", sa.BigInteger(), nullable=True))
    op.create_table(
        "damage",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "kind", "seq", name=op.f("pk_damage")),
    )


def downgrade() -> None:
    op.drop_table("damage")
    op.drop_column("snapshots", "checksum")
    op.drop_column("log", "checksum")
