"""Targets that get copies of predictions, and what came of comparing their answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COUNTS = ("mirrored", "compared", "different", "failed", "lost")


def upgrade() -> None:
    op.add_column("targets", sa.Column("shadow_percent", sa.Integer, nullable=False, server_default="0"))
    op.alter_column("targets", "shadow_percent", server_default=None)
    op.add_column("replica_groups", sa.Column("shadow", sa.Boolean, nullable=False, server_default="false"))
    op.alter_column("replica_groups", "shadow", server_default=None)
    op.create_table(
        "shadow_counts",
        sa.Column(
            "group_id", sa.Text, sa.ForeignKey("replica_groups.id", ondelete="CASCADE"), primary_key=True
        ),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
    )
