"""Deployments in the lineage graph, and on whose behalf edges were recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    """Apply."""
    op.add_column("lineage_nodes", sa.Column("owner_id", sa.Text))
    op.add_column("lineage_nodes", sa.Column("schema_id", ID))
    op.add_column("lineage_nodes", sa.Column("delete_time", TIMESTAMP(timezone=True)))
    op.create_index(
        "lineage_nodes_deployments",
        "lineage_nodes",
        ["name"],
        postgresql_where=sa.text("kind = 'DEPLOYMENT'"),
    )
    op.add_column("lineage_edges", sa.Column("target_kind", sa.Text))
    op.execute(
        "UPDATE lineage_edges SET target_kind = kind FROM lineage_nodes WHERE lineage_nodes.id = target_id"
    )
    op.alter_column("lineage_edges", "target_kind", nullable=False)
    op.add_column("lineage_edges", sa.Column("anchor_type", sa.Text))
    op.add_column("lineage_edges", sa.Column("anchor_id", ID))
