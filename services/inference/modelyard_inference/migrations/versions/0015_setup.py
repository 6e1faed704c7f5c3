"""How replicas gather predictions, variables of their environment, and how they take over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("deployments", "replica_groups"):
        for column in ("batching", "environment_variables"):
            op.add_column(table, sa.Column(column, JSONB, nullable=False, server_default="{}"))
            op.alter_column(table, column, server_default=None)
    strategy = sa.Column("update_strategy", sa.Text, nullable=False, server_default="AVAILABILITY_PRESERVING")
    op.add_column("deployments", strategy)
    op.alter_column("deployments", "update_strategy", server_default=None)
