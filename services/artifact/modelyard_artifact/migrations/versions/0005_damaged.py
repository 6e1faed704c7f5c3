"""Content that was found damaged and thrown away, and is wanted again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("damaged", sa.Boolean, nullable=False, server_default=sa.false()))
