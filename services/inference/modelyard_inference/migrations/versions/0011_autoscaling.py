"""Deployments whose number of replicas changes with their predictions in flight."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("autoscaling", JSONB, nullable=False, server_default="{}"))
    op.alter_column("deployments", "autoscaling", server_default=None)
    op.add_column("replica_groups", sa.Column("scale", JSONB))
