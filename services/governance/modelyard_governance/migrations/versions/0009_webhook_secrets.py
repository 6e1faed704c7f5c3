"""Earlier secrets of webhooks, which count for a while after a rotation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    empty = sa.text("'[]'::jsonb")
    op.add_column("webhooks", sa.Column("earlier_secrets", JSONB, nullable=False, server_default=empty))


def downgrade() -> None:
    op.drop_column("webhooks", "earlier_secrets")
