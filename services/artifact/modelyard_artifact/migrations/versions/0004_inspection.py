"""What was found out about artifacts from their files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "inspections",
        sa.Column("digest", sa.Text, sa.ForeignKey("artifacts.digest", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", time),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("actor_kind", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("request_time", time, nullable=False),
        sa.Column("end_time", time),
        sa.Column("oci", sa.Boolean),
        sa.Column("tests", sa.Text),
        sa.Column("scan", sa.Text),
        sa.Column("scanner", sa.Text, nullable=False, server_default=""),
        sa.Column("tests_json", sa.Text, nullable=False, server_default=""),
        sa.Column("details", JSONB),
        comment="What was found out about each artifact from its files, and what is still to be found out.",
    )
    op.create_index(
        "inspections_pending", "inspections", ["request_time"], postgresql_where=sa.text("state = 'PENDING'")
    )
    # What is there already is inspected too, by nobody's wish but that of the service.
    op.execute(
        "INSERT INTO inspections (digest, state, actor_id, actor_name, actor_kind, request_id, request_time)"
        " SELECT digest, 'PENDING', '', 'artifact', 'service', '', now() FROM artifacts"
    )


def downgrade() -> None:
    op.drop_table("inspections")
