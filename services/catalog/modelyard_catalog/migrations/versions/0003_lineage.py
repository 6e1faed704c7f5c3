"""Metadata of versions, the lineage graph, and the order of all moves of a model's aliases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.Uuid(as_uuid=False)
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.add_column("model_versions", sa.Column("metadata", JSONB))
    op.create_index("alias_history_model", "alias_history", ["model_id", "sequence"])
    op.create_table(
        "lineage_nodes",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
    )
    op.create_table(
        "lineage_edges",
        sa.Column("source_id", ID, primary_key=True),
        sa.Column("target_id", ID, primary_key=True),
        sa.Column("relation", sa.Text, primary_key=True),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
    )
    op.create_index("lineage_edges_upstream", "lineage_edges", ["target_id", "source_id", "relation"])
