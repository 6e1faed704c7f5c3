"""Deletion with a time to come back, labels, copies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("catalogs", "schemas", "models", "model_versions")


def upgrade() -> None:
    """Apply."""
    for table in TABLES:
        op.add_column(table, sa.Column("purge_time", TIMESTAMP(timezone=True)))
        deleted = sa.text("purge_time IS NOT NULL")
        op.create_index(f"{table}_purge", table, ["purge_time"], postgresql_where=deleted)
    for name in ("label", "copied_from", "copied_from_id"):
        op.add_column("model_versions", sa.Column(name, sa.Text, nullable=False, server_default=""))
        op.alter_column("model_versions", name, server_default=None)
    op.create_index(
        "model_versions_live_label",
        "model_versions",
        ["model_id", "label"],
        unique=True,
        postgresql_where=sa.text("label <> '' AND delete_time IS NULL"),
    )
    # The purge of a model takes its history along, and says so for its own transaction alone.
    op.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' AND current_setting('modelyard.purge', true) = 'on' THEN
                RETURN NULL;
            END IF;
            RAISE EXCEPTION 'rows of % are only ever appended', TG_TABLE_NAME;
        END $$
        """
    )
