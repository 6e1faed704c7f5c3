"""What filters and orders of lists need: where reviewed versions stand, parts of audited events as columns, indexes.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _standings()
    _audit()
    # Text compares by code point (docs/filters.md), so its indexes do.
    op.create_index("principals_order", "principals", [sa.text('name COLLATE "C"')])
    op.create_index("tokens_order", "tokens", ["principal_id", sa.text('id COLLATE "C"')])
    op.create_index("grants_order", "grants", ["resource_id", sa.text('id COLLATE "C"')])


def _standings() -> None:
    op.create_table(
        "standings",
        sa.Column("version_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("schema_id", sa.Text, nullable=False),
        sa.Column("catalog_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("author_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("approvals", sa.Integer, nullable=False),
        sa.Column("required_approvals", sa.Integer, nullable=False),
        sa.Column("review_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("listed", sa.Boolean, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("marks", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("look_up", sa.Boolean, nullable=False),
        sa.CheckConstraint("state IN ('PENDING', 'APPROVED', 'REJECTED')", name="standings_state"),
    )
    for level in ("model", "schema", "catalog"):
        op.create_index(f"standings_{level}", "standings", [f"{level}_id"])
    undelivered = sa.text("delivered < sequence")
    op.create_index("standings_undelivered", "standings", ["version_id"], postgresql_where=undelivered)
    marked = sa.text("seen < marks")
    op.create_index("standings_marked", "standings", ["version_id"], postgresql_where=marked)
    # Versions that were reviewed before: the follower asks the catalog what and where they are.
    op.execute(
        """
        INSERT INTO standings
        SELECT version_id, '', '', '', '', '', 'PENDING', 0, 1, max(create_time), false, 0, 0, 1, 0, true
        FROM reviews GROUP BY version_id
        """
    )


def _audit() -> None:
    # The time of an event is written with its zone, so its meaning depends on no setting.
    op.execute(
        "CREATE FUNCTION audit_time(text) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE "
        "AS 'SELECT $1::timestamptz'"
    )
    paths = {
        "type": "{type}",
        "actor": "{actorName}",
        "actor_id": "{actorId}",
        "resource": "{resource,name}",
        "request_id": "{requestId}",
    }
    texts = {name: f"coalesce(canonical_event::json #>> '{path}', '')" for name, path in paths.items()}
    kind = "lower(replace(coalesce(canonical_event::json #>> '{resource,type}', ''), 'RESOURCE_TYPE_', ''))"
    columns = [f"ADD {name} text NOT NULL GENERATED ALWAYS AS ({sql}) STORED" for name, sql in texts.items()]
    columns += [
        f"ADD resource_type text NOT NULL GENERATED ALWAYS AS ({kind}) STORED",
        "ADD time timestamptz GENERATED ALWAYS AS (audit_time(canonical_event::json ->> 'time')) STORED",
    ]
    op.execute(sa.text(f"ALTER TABLE audit {', '.join(columns)}".replace(":", "\\:")))
    op.create_index("audit_type", "audit", ["type", "sequence"])
    op.create_index("audit_actor", "audit", ["actor", "sequence"])
    op.create_index("audit_time", "audit", ["time"])
