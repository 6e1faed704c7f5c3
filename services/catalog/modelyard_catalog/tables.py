"""The catalog's tables, exactly as the migrations make them (a test compares the two).

Ids never change and nothing refers to a name, so that a rename is one column. Rows are never removed by a change of the
catalog: `delete_time` hides them, and unique names hold among the rows that are not hidden.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from modelyard_kit import idempotency, outbox

metadata = MetaData()
outbox.outbox_table(metadata)
idempotency.requests_table(metadata)

_TIME = TIMESTAMP(timezone=True)
_ID = Uuid(as_uuid=False)
_LIVE = text("delete_time IS NULL")


def _common() -> list[Column[object]]:
    return [
        Column("id", _ID, primary_key=True),
        Column("description", Text, nullable=False),
        Column("tags", JSONB, nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("create_time", _TIME, nullable=False),
        Column("update_time", _TIME, nullable=False),
        Column("delete_time", _TIME),
    ]


catalogs = Table(
    "catalogs",
    metadata,
    *_common(),
    Column("name", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    Index("catalogs_live_name", "name", unique=True, postgresql_where=_LIVE),
)

schemas = Table(
    "schemas",
    metadata,
    *_common(),
    Column("catalog_id", _ID, ForeignKey("catalogs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    Index("schemas_live_name", "catalog_id", "name", unique=True, postgresql_where=_LIVE),
    Index("schemas_page", "catalog_id", "id"),
)

models = Table(
    "models",
    metadata,
    *_common(),
    Column("schema_id", _ID, ForeignKey("schemas.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    Column("latest_version", BigInteger, nullable=False),
    Index("models_live_name", "schema_id", "name", unique=True, postgresql_where=_LIVE),
    Index("models_page", "schema_id", "id"),
)

model_versions = Table(
    "model_versions",
    metadata,
    *_common(),
    Column("model_id", _ID, ForeignKey("models.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_message", Text, nullable=False),
    Column("artifact_digest", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("signature", JSONB(none_as_null=True)),
    Column("provenance", JSONB(none_as_null=True)),
    Column("author_id", Text, nullable=False),
    Column("author_name", Text, nullable=False),
    UniqueConstraint("model_id", "number", name="model_versions_number"),
    Index(
        "model_versions_ready",
        "model_id",
        "number",
        postgresql_where=text("state = 'READY' AND delete_time IS NULL"),
    ),
)

metrics = Table(
    "metrics",
    metadata,
    Column("version_id", _ID, ForeignKey("model_versions.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    # The value again where it is a number, so that numbers can be compared and sorted.
    Column("number", Double),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", _ID, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    ForeignKeyConstraint(["model_id", "number"], ["model_versions.model_id", "model_versions.number"]),
    Index("aliases_number", "model_id", "number"),
)

# Only ever appended to: a trigger refuses every UPDATE and DELETE.
alias_history = Table(
    "alias_history",
    metadata,
    Column("sequence", BigInteger, Identity(always=True), primary_key=True),
    Column("model_id", _ID, ForeignKey("models.id"), nullable=False),
    Column("alias", Text, nullable=False),
    # Version numbers; 0 stands for "no such alias".
    Column("number_before", BigInteger, nullable=False),
    Column("number_after", BigInteger, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("time", _TIME, nullable=False),
    Index("alias_history_alias", "model_id", "alias", "sequence"),
)
