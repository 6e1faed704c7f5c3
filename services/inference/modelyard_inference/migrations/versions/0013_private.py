"""Deployments that answer on the private listener alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("private", sa.Boolean, nullable=False, server_default=sa.false()))
    op.alter_column("deployments", "private", server_default=None)
