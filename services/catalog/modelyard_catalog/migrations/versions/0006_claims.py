"""Deletions claim what they are about to delete; the change feed has an id, so that tokens of another one are told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from modelyard_kit import outbox_tables

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "deletion_claims",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("until", sa.TIMESTAMP(timezone=True), nullable=False),
    )
    op.create_index("deletion_claims_resource", "deletion_claims", ["resource_id"])
    outbox_tables.add_feed_id(op)
