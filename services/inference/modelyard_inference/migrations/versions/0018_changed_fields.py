"""Which settings each revision changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# As `history.changed_fields` says, of settings as they are stored: targets without what their aliases meant.
_FILL = """
WITH written AS (
    SELECT deployment_id, number, settings - 'active' || jsonb_build_object('targets', (
        SELECT coalesce(jsonb_agg(target - ARRAY['version_id', 'model_id', 'model_version']), '[]')
        FROM jsonb_array_elements(settings->'targets') AS target
    )) AS settings
    FROM deployment_revisions
), pairs AS (
    SELECT deployment_id, number, settings, lag(settings) OVER (PARTITION BY deployment_id ORDER BY number) AS before
    FROM written
)
UPDATE deployment_revisions AS r SET changed_fields = ARRAY(
    SELECT CASE key WHEN 'timeout_ms' THEN 'timeout' WHEN 'log_policy' THEN 'logging' ELSE key END AS field
    FROM jsonb_each(pairs.settings)
    WHERE pairs.before ? key AND value IS DISTINCT FROM pairs.before->key
    ORDER BY field
)
FROM pairs WHERE (r.deployment_id, r.number) = (pairs.deployment_id, pairs.number)
"""


def upgrade() -> None:
    op.add_column(
        "deployment_revisions",
        sa.Column("changed_fields", ARRAY(sa.Text), nullable=False, server_default="{}"),
    )
    op.alter_column("deployment_revisions", "changed_fields", server_default=None)
    op.execute(_FILL)
