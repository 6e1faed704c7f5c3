"""The catalog: namespaces, models, versions, metrics, aliases and their history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from modelyard_kit import idempotency, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Uuid(as_uuid=False)
TIME = TIMESTAMP(timezone=True)
LIVE = sa.text("delete_time IS NULL")


def upgrade() -> None:
    outbox_tables.create(op)
    idempotency.create(op)
    _namespaces()
    _versions()
    _aliases()


def _common() -> list[sa.Column[object]]:
    return [
        sa.Column("id", ID, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("tags", JSONB, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("delete_time", TIME),
    ]


def _named() -> list[sa.Column[object]]:
    return [
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
    ]


def _namespaces() -> None:
    op.create_table("catalogs", *_common(), *_named())
    op.create_index("catalogs_live_name", "catalogs", ["name"], unique=True, postgresql_where=LIVE)
    op.create_table(
        "schemas",
        *_common(),
        sa.Column("catalog_id", ID, sa.ForeignKey("catalogs.id"), nullable=False),
        *_named(),
    )
    op.create_index(
        "schemas_live_name", "schemas", ["catalog_id", "name"], unique=True, postgresql_where=LIVE
    )
    op.create_index("schemas_page", "schemas", ["catalog_id", "id"])
    op.create_table(
        "models",
        *_common(),
        sa.Column("schema_id", ID, sa.ForeignKey("schemas.id"), nullable=False),
        *_named(),
        sa.Column("latest_version", sa.BigInteger, nullable=False),
    )
    op.create_index("models_live_name", "models", ["schema_id", "name"], unique=True, postgresql_where=LIVE)
    op.create_index("models_page", "models", ["schema_id", "id"])


def _versions() -> None:
    op.create_table(
        "model_versions",
        *_common(),
        sa.Column("model_id", ID, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_message", sa.Text, nullable=False),
        sa.Column("artifact_digest", sa.Text, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("signature", JSONB),
        sa.Column("provenance", JSONB),
        sa.Column("author_id", sa.Text, nullable=False),
        sa.Column("author_name", sa.Text, nullable=False),
        sa.UniqueConstraint("model_id", "number", name="model_versions_number"),
    )
    op.create_index(
        "model_versions_ready",
        "model_versions",
        ["model_id", "number"],
        postgresql_where=sa.text("state = 'READY' AND delete_time IS NULL"),
    )
    op.create_table(
        "metrics",
        sa.Column("version_id", ID, sa.ForeignKey("model_versions.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("number", sa.Double),
    )


def _aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("model_id", ID, primary_key=True),
        sa.Column("alias", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["model_id", "number"], ["model_versions.model_id", "model_versions.number"]),
    )
    op.create_index("aliases_number", "aliases", ["model_id", "number"])
    op.create_table(
        "alias_history",
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("model_id", ID, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("number_before", sa.BigInteger, nullable=False),
        sa.Column("number_after", sa.BigInteger, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("time", TIME, nullable=False),
    )
    op.create_index("alias_history_alias", "alias_history", ["model_id", "alias", "sequence"])
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of % are only ever appended', TG_TABLE_NAME;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON alias_history"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
