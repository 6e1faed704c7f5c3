"""The catalog's tables, exactly as the migrations make them (a test compares the two).

Ids never change and nothing refers to a name, so that a rename is one column. Rows are never removed by a change of the
catalog: `delete_time` hides them with all that they contain, and unique names hold among the rows that are not hidden. After
`purge_time` the purge removes them for good.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    ScalarSelect,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from modelyard_kit import idempotency, outbox_tables

metadata = MetaData()
events = outbox_tables.outbox_table(metadata, sequenced=True)
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
        Column("purge_time", _TIME),
    ]


def _purge(table: str) -> Index:
    return Index(f"{table}_purge", "purge_time", postgresql_where=text("purge_time IS NOT NULL"))


def _tags(table: str) -> Index:
    ops = {"tags": "jsonb_path_ops"}
    return Index(f"{table}_tags", "tags", postgresql_using="gin", postgresql_ops=ops)


def _ordered(table: str, *columns: str) -> Index:
    """Return the index that serves the last column as filters and orders compare text; see docs/filters.md."""
    # What stands in `postgresql_ops` is written behind the column, where SQLAlchemy has no place of its own for a collation.
    return Index(f"{table}_{columns[-1]}", *columns, postgresql_ops={columns[-1]: 'COLLATE "C"'})


catalogs = Table(
    "catalogs",
    metadata,
    *_common(),
    Column("name", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    Index("catalogs_live_name", "name", unique=True, postgresql_where=_LIVE),
    _ordered("catalogs", "name"),
    _purge("catalogs"),
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
    _ordered("schemas", "catalog_id", "name"),
    _purge("schemas"),
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
    _ordered("models", "schema_id", "name"),
    _tags("models"),
    _purge("models"),
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
    Column("metadata", JSONB(none_as_null=True)),
    Column("author_id", Text, nullable=False),
    Column("author_name", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("copied_from", Text, nullable=False),
    Column("copied_from_id", Text, nullable=False),
    # What governance told last: for lists only. No change of the version, so `revision` and `update_time` stay.
    Column("approval_state", Text, nullable=False, server_default=text("'NONE'")),
    Column("approval_sequence", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("model_id", "number", name="model_versions_number"),
    Index(
        "model_versions_live_label",
        "model_id",
        "label",
        unique=True,
        postgresql_where=text("label <> '' AND delete_time IS NULL"),
    ),
    _purge("model_versions"),
    _tags("model_versions"),
    # With what a range of times is mostly narrowed down and ordered by, so that only what is shown is read from the table.
    Index(
        "model_versions_create_time",
        "model_id",
        "create_time",
        postgresql_include=["number", "state", "delete_time", "id"],
    ),
    Index("model_versions_digest", "artifact_digest", "model_id"),
    Index(
        "model_versions_commit",
        text("(provenance ->> 'git_commit')"),
        postgresql_using="hash",
        postgresql_where=text("(provenance ->> 'git_commit') <> ''"),
    ),
    _ordered("model_versions", "model_id", "label"),
    Index(
        "model_versions_ready",
        "model_id",
        "number",
        postgresql_where=text("state = 'READY' AND delete_time IS NULL"),
    ),
    Index(
        "model_versions_approval",
        "model_id",
        "approval_state",
        "number",
        postgresql_where=text("approval_state <> 'NONE'"),
    ),
)

# What the artifact service told last, by digest, so that versions have it whichever comes first; removed with the last of them.
artifact_tests = Table(
    "artifact_tests",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("results", JSONB, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("update_time", _TIME, nullable=False),
    Index("artifact_tests_state", "state", "digest"),
)


def tests_of_version() -> ScalarSelect[Any]:
    """Return what was told of the tests of a version's artifact: a JSON array of state and results; NULL if nothing was.

    By a subquery: with a join PostgreSQL planned some pages of a million versions as if it had to read them all.
    """
    told = select(func.jsonb_build_array(artifact_tests.c.state, artifact_tests.c.results, type_=JSONB))
    told = told.where(artifact_tests.c.digest == model_versions.c.artifact_digest)
    return told.correlate(model_versions).scalar_subquery()


metrics = Table(
    "metrics",
    metadata,
    Column("version_id", _ID, ForeignKey("model_versions.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    # That of the version, which has it for good: an index has the metrics of one model next to each other.
    Column("model_id", _ID, nullable=False),
    Column("value", JSONB, nullable=False),
    # The value again where it is a number, so that numbers can be compared and sorted.
    Column("number", Double),
)

# By falling number, NULL last: the order of `metrics.accuracy desc`.
Index(
    "metrics_search",
    metrics.c.model_id,
    metrics.c.name,
    metrics.c.number.desc().nulls_last(),
    metrics.c.version_id,
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

# Only ever appended to: a trigger refuses every UPDATE, and every DELETE but that of the purge of its model.
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
    Index("alias_history_model", "model_id", "sequence"),
)

# Deletions under way: what is claimed here is not begun to be used, until the claim is given up or its time is over.
deletion_claims = Table(
    "deletion_claims",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("resource_id", _ID, nullable=False),
    Column("until", _TIME, nullable=False),
    Index("deletion_claims_resource", "resource_id"),
)

# The id of a node follows from what it stands for (see lineage_store.py), so that writers need not look for it. No foreign
# keys: the graph outlives what was purged, and checking them would make concurrent writers of one data set collide.
lineage_nodes = Table(
    "lineage_nodes",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", Text, nullable=False),
    # Empty for versions of models, which are called what they are called now; of deployments the last one known.
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    # Of deployments alone, by which to decide who may see them.
    Column("owner_id", Text),
    Column("schema_id", _ID),
    Column("delete_time", _TIME),
    Index("lineage_nodes_deployments", "name", postgresql_where=text("kind = 'DEPLOYMENT'")),
)

lineage_edges = Table(
    "lineage_edges",
    metadata,
    Column("source_id", _ID, primary_key=True),
    Column("target_id", _ID, primary_key=True),
    Column("relation", Text, primary_key=True),
    # That of its node, so that circles are looked for in this table alone.
    Column("target_kind", Text, nullable=False),
    # Schema or model on whose behalf it was recorded, where neither end says who may.
    Column("anchor_type", Text),
    Column("anchor_id", _ID),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Index("lineage_edges_upstream", "target_id", "source_id", "relation"),
)
