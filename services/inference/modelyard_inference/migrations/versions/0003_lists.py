"""Indexes for filters and orders of lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Text compares by code point (docs/filters.md), so its indexes do.
    by_id = sa.text('id COLLATE "C"')
    op.create_index("deployments_order", "deployments", [by_id])
    op.create_index("deployments_order_in_schema", "deployments", ["schema_id", by_id])
    op.create_index("deployments_name", "deployments", [sa.text('name COLLATE "C"')])
    op.create_index("replicas_order", "replicas", ["deployment_id", by_id])
    op.drop_index("deployments_page", "deployments")
