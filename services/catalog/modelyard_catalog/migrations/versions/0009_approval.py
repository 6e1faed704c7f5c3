"""Where versions stand with governance, for lists to find them by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    state = sa.Column("approval_state", sa.Text, nullable=False, server_default=sa.text("'NONE'"))
    op.add_column("model_versions", state)
    sequence = sa.Column("approval_sequence", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    op.add_column("model_versions", sequence)
    op.create_index(
        "model_versions_approval",
        "model_versions",
        ["model_id", "approval_state", "number"],
        postgresql_where=sa.text("approval_state <> 'NONE'"),
    )
