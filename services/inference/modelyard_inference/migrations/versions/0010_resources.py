"""What each replica of a deployment may use of its machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("deployments", "replica_groups"):
        op.add_column(table, sa.Column("resources", JSONB, nullable=False, server_default="{}"))
        op.alter_column(table, "resources", server_default=None)
