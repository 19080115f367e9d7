"""What tenants use, and their quotas. The tables are new and empty, so nobody waits for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.LargeBinary(), nullable=False),
        sa.Column("quota", sa.LargeBinary(), nullable=True),
        sa.Column("documents", sa.BigInteger(), nullable=True),
        sa.Column("nbytes", sa.BigInteger(), nullable=True),
        sa.Column("measured_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    op.create_table(
        "tenant_usage",
        sa.Column("tenant", sa.LargeBinary(), nullable=False),
        sa.Column("month", sa.BigInteger(), nullable=False),
        sa.Column("edits", sa.BigInteger(), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.Column("connection_ms", sa.BigInteger(), nullable=False),
        sa.Column("peak", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "month", name=op.f("pk_tenant_usage")),
    )
    op.create_table(
        "tenant_connections",
        sa.Column("tenant", sa.LargeBinary(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("connections", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "node", name=op.f("pk_tenant_connections")),
    )
    op.create_table(
        "tenant_batches",
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_tenant_batches")),
    )
    op.create_table(
        "tenant_documents",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_tenant_documents")),
        sa.Index("ix_tenant_documents_tenant", "tenant", "document_id"),
    )


def downgrade() -> None:
    op.drop_table("tenant_documents")
    op.drop_table("tenant_batches")
    op.drop_table("tenant_connections")
    op.drop_table("tenant_usage")
    op.drop_table("tenants")
