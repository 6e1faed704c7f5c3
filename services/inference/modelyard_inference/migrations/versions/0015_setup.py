"""How replicas gather predictions, and variables of their environment."""

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
