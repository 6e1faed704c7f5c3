"""An installation has an id, which its blob store carries: another one's collector must not take the content for garbage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("one", sa.Boolean, sa.CheckConstraint("one"), primary_key=True, server_default=sa.true()),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("moves", sa.Integer, nullable=False, server_default="0"),
        comment="Which installation this is, and how often its content has moved; the mark of its blob store says the same.",
    )
