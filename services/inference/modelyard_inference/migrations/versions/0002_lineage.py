"""What the lineage graph has yet to be told of deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lineage_notes",
        sa.Column("deployment_id", sa.Text, primary_key=True),
        sa.Column("version_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("schema_id", sa.Text, nullable=False),
        sa.Column("time", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("told", sa.Boolean, nullable=False),
    )
    op.create_index("lineage_notes_pending", "lineage_notes", ["time"], postgresql_where=sa.text("NOT told"))
    # What answers already was never noted.
    op.execute(
        """
        INSERT INTO lineage_notes
        SELECT DISTINCT d.id, g.version->>'id', d.name, d.owner_id, d.schema_id, now(), false
        FROM deployments d JOIN replica_groups g ON g.deployment_id = d.id WHERE g.state = 'SERVING'
        """
    )
