"""Deployments that send calls with the same header to the same target."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("sticky_header", sa.Text, nullable=False, server_default=""))
    op.alter_column("deployments", "sticky_header", server_default=None)
