"""The change feed: events are numbered after they commit, and know the containers of what they are about."""

from __future__ import annotations

from alembic import op

from modelyard_kit import outbox_tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    outbox_tables.add_sequence(op)
    _scope_of_earlier_events()


def _scope_of_earlier_events() -> None:
    """Events from before this migration get the containers that their resources have now."""
    versions = "model_versions v JOIN models m ON v.model_id = m.id"
    models = "JOIN schemas s ON m.schema_id = s.id"
    sources = {
        "catalog": ("c.id", "c.id", "catalogs c"),
        "schema": ("s.id", "s.id, s.catalog_id", "schemas s"),
        "model": ("m.id", "m.id, s.id, s.catalog_id", f"models m {models}"),
        "model_version": ("v.id", "v.id, m.id, s.id, s.catalog_id", f"{versions} {models}"),
    }
    for kind, (key, ids, tables) in sources.items():
        op.execute(
            f"UPDATE outbox SET scope = ARRAY[{ids}] FROM {tables}"  # noqa: S608 - constants of this file
            f" WHERE resource_type = '{kind}' AND resource_id = {key}::text"
        )
