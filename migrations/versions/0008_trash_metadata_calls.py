"""Own metadata, the trash, skeletons of erased documents, and calls that are done once.

The new indexes are all on new tables, which are empty, so nobody waits for one. Listings by the time of the last edit
have none: it would have to be written with each edit (``collab/storage/schema.py``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.add_column("documents", sa.Column("metadata", sa.LargeBinary(), nullable=True))
    op.create_table(
        "trash",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_trash")),
        sa.Index("ix_trash_deleted_at", "deleted_at", "document_id"),
        sa.Index("ix_trash_name", "name", "document_id"),
    )
    op.create_table(
        "skeletons",
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_skeletons")),
    )
    op.create_table(
        "calls",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.Column("token", sa.String(32), nullable=True),
        sa.Column("document_id", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_calls")),
        sa.Index("ix_calls_at", "at"),
        sa.Index("ix_calls_document_id", "document_id"),
    )


def downgrade() -> None:
    op.drop_table("calls")
    op.drop_table("skeletons")
    op.drop_table("trash")
    op.drop_column("documents", "metadata")
