"""Rollouts in steps: how, which are under way, what was taken back, and what to go back to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_AS_IT_ANSWERS = """
INSERT INTO rollout_origins (deployment_id, content)
SELECT d.id, jsonb_build_object(
    'max_request_bytes', d.max_request_bytes,
    'require_signature', d.require_signature,
    'targets', jsonb_agg(jsonb_build_object(
        'reference', t.reference, 'model', t.model, 'follows', t.follows, 'weight', t.weight,
        'shadow_percent', t.shadow_percent, 'wanted', t.wanted
    ) ORDER BY t.position)
)
FROM deployments d JOIN targets t ON t.deployment_id = d.id
GROUP BY d.id
HAVING bool_and(t.serving = t.wanted ->> 'name')
"""


def upgrade() -> None:
    op.add_column("deployments", sa.Column("rollout_policy", JSONB, nullable=False, server_default="{}"))
    op.alter_column("deployments", "rollout_policy", server_default=None)
    op.add_column("deployments", sa.Column("rollout", JSONB))
    op.add_column("deployments", sa.Column("rejection", JSONB))
    op.create_table(
        "rollout_origins",
        sa.Column(
            "deployment_id", sa.Text, sa.ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("content", JSONB, nullable=False),
    )
    op.execute(_AS_IT_ANSWERS)
