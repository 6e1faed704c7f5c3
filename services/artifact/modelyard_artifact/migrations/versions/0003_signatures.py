"""Signatures of artifacts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signatures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, sa.ForeignKey("artifacts.digest", ondelete="CASCADE"), nullable=False),
        sa.Column("signer", sa.Text, nullable=False),
        sa.Column("trust_root", sa.Text, nullable=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        comment="OpenSSF model signatures of artifacts.",
    )
    op.create_index("signatures_digest", "signatures", ["digest"])


def downgrade() -> None:
    op.drop_table("signatures")
