"""The names of guests who have edited documents. The table is new and empty, so nobody waits for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "guests",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("invited_by", sa.LargeBinary(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "author", name=op.f("pk_guests")),
    )


def downgrade() -> None:
    op.drop_table("guests")
