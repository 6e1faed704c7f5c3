"""Who uses an artifact, since when nobody does, and blobs on their way out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    # Nobody is known to use what is there: the first sweep asks the catalog about all of it.
    op.add_column("artifacts", sa.Column("unreferenced_since", time, server_default=sa.func.now()))
    op.add_column(
        "artifacts", sa.Column("check_time", time, server_default=sa.text("'-infinity'"), nullable=False)
    )
    op.create_index("artifacts_check", "artifacts", ["check_time"])
    op.create_index(
        "artifacts_unreferenced",
        "artifacts",
        ["unreferenced_since"],
        postgresql_where=sa.text("unreferenced_since IS NOT NULL"),
    )
    op.create_table(
        "artifact_references",
        sa.Column("digest", sa.Text, sa.ForeignKey("artifacts.digest"), primary_key=True),
        sa.Column("model_version_id", sa.Text, primary_key=True),
        sa.Column("create_time", time, nullable=False),
        comment="Versions that have, or are about to get, an artifact.",
    )
    op.create_table(
        "condemned_blobs",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        comment="Content that no manifest names: it is being deleted unless an upload announces it.",
    )


def downgrade() -> None:
    op.drop_table("condemned_blobs")
    op.drop_table("artifact_references")
    op.drop_index("artifacts_unreferenced")
    op.drop_index("artifacts_check")
    op.drop_column("artifacts", "check_time")
    op.drop_column("artifacts", "unreferenced_since")
