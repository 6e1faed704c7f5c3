"""Indexes for filters and orders of lists; metrics know their model, so that one index has those of a model together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("metrics", sa.Column("model_id", sa.Uuid(as_uuid=False)))
    op.execute(
        "UPDATE metrics SET model_id = v.model_id FROM model_versions v WHERE v.id = metrics.version_id"
    )
    op.alter_column("metrics", "model_id", nullable=False)
    # By falling number, NULL last: the order of `metrics.accuracy desc`.
    falling = sa.text("number DESC NULLS LAST")
    op.create_index("metrics_search", "metrics", ["model_id", "name", falling, "version_id"])
    # Text compares by code point (docs/filters.md), so its indexes do.
    name = sa.text('name COLLATE "C"')
    op.create_index("catalogs_name", "catalogs", [name])
    op.create_index("schemas_name", "schemas", ["catalog_id", name])
    op.create_index("models_name", "models", ["schema_id", name])
    op.create_index("model_versions_label", "model_versions", ["model_id", sa.text('label COLLATE "C"')])
    op.create_index("model_versions_create_time", "model_versions", ["model_id", "create_time"])
    for table in ("models", "model_versions"):
        ops = {"tags": "jsonb_path_ops"}
        op.create_index(f"{table}_tags", table, ["tags"], postgresql_using="gin", postgresql_ops=ops)
