"""Webhooks: receivers, deliveries, up to which row receivers were told of each document, and who delivers.

All of it is new and empty, so nobody waits for an index. Nothing is added to the tables that edits write.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "webhook_lease",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("base_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_webhook_lease")),
    )
    op.create_table(
        "webhook_receivers",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("prefix", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_webhook_receivers")),
    )
    op.create_table(
        "webhook_cursors",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_webhook_cursors")),
    )
    op.create_table(
        "webhook_marks",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_webhook_marks")),
        sa.Index("ix_webhook_marks_at", "at"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("receiver", sa.String(64), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("lane", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("done_at", sa.Double(), nullable=True),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.Index("ix_webhook_deliveries_lane", "lane"),
        sa.Index("ix_webhook_deliveries_receiver", "receiver", "done_at", "lane", "id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("deliveries", "marks", "cursors", "receivers", "lease"):
        op.drop_table(f"webhook_{table}")
