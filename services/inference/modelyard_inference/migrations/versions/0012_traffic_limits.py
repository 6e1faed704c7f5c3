"""What callers may ask of a deployment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("traffic_limits", JSONB, nullable=False, server_default="{}"))
    op.alter_column("deployments", "traffic_limits", server_default=None)
