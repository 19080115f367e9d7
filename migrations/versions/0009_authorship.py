"""Whose the client IDs of a document are, and what edits over HTTP say of themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.add_column("log", sa.Column("on_behalf_of", sa.LargeBinary(), nullable=True))
    op.add_column("log", sa.Column("label", sa.LargeBinary(), nullable=True))
    op.create_table(
        "client_owners",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("client", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "client", name=op.f("pk_client_owners")),
    )


def downgrade() -> None:
    op.drop_table("client_owners")
    op.drop_column("log", "label")
    op.drop_column("log", "on_behalf_of")
