"""What operators tell all servers to do, and the new names of documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.add_column("documents", sa.Column("renamed_to", sa.BigInteger(), nullable=True))
    op.create_table(
        "instructions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("document_name", sa.LargeBinary(), nullable=True),
        sa.Column("user_id", sa.LargeBinary(), nullable=True),
        sa.Column("connection", sa.String(64), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("lapses_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instructions")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instruction_reports",
        sa.Column("instruction_id", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("undecided", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("instruction_id", "node", name=op.f("pk_instruction_reports")),
    )


def downgrade() -> None:
    op.drop_table("instruction_reports")
    op.drop_table("instructions")
    op.drop_column("documents", "renamed_to")
