"""In which Python environment the replicas of a deployment run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("deployments", "replica_groups"):
        op.add_column(table, sa.Column("environment", JSONB, nullable=False, server_default="{}"))
        op.alter_column(table, "environment", server_default=None)
