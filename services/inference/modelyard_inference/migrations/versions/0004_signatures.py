"""What replicas check the signatures of their artifacts by, and what the checks said."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signature_evidence",
        sa.Column("version_id", sa.Text, primary_key=True),
        sa.Column("content", JSONB, nullable=False),
    )
    # What runs already was asked for without the requirement, and loaded without a check.
    for table in ("deployments", "replica_groups"):
        _add(table, sa.Column("require_signature", sa.Boolean, nullable=False, server_default=sa.false()))
    for name in ("signature_state", "signer", "trust_root"):
        _add("replicas", sa.Column(name, sa.Text, nullable=False, server_default=""))


def _add(table: str, column: sa.Column[Any]) -> None:
    """Add a column whose default is for the rows of today only."""
    op.add_column(table, column)
    op.alter_column(table, column.name, server_default=None)
