"""What servers answer to what operators ask all of them, such as their connections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

oldest_schema = 2
oldest_release = "0.1.0"


def upgrade() -> None:
    op.create_table(
        "instruction_answers",
        sa.Column("instruction_id", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("instruction_id", "node", name=op.f("pk_instruction_answers")),
    )


def downgrade() -> None:
    op.drop_table("instruction_answers")
