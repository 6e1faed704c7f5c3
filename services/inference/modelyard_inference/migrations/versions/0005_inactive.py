"""Deployments that are kept and run nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What is there was made to answer.
    op.add_column("deployments", sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()))
    op.alter_column("deployments", "active", server_default=None)
