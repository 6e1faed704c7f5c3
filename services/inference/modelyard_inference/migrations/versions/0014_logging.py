"""What replicas write down about predictions, and what they were told to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NOTHING = '{"access_log": false, "predict_percent": 0, "include_payload": false}'


def upgrade() -> None:
    op.add_column("deployments", sa.Column("log_policy", JSONB, nullable=False, server_default=_NOTHING))
    op.alter_column("deployments", "log_policy", server_default=None)
    op.create_table(
        "log_switches",
        sa.Column("replica_id", sa.Text, sa.ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("process_started", sa.Text, nullable=False),
        sa.Column("policy", JSONB, nullable=False),
    )
