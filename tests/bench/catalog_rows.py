"""Rows for the catalog's benchmark, made by PostgreSQL itself: a million versions in about two minutes.

What a service writes when a version is created is written here, too: version, metrics, aliases and their history, lineage, the
remembered request, and the event, numbered and delivered. Every column of every table is named below, so a column that comes
or goes stops the benchmark instead of leaving it to measure another schema.

Of `size` versions a tenth belongs to one model, `bench.ml.wide`; the others have 90 each. Numbers of all models grow side by
side, so that the versions of one model lie scattered over the table, as they do where many people work at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
from sqlalchemy import Table

from modelyard_catalog import tables

CATALOG, SCHEMA, WIDE = "bench", "ml", "wide"
EACH = 90
BEGIN = "2026-01-01T00:00:00Z"
# Between two versions of the wide model; ten times as long as between any two.
STEP_SECONDS = 10

_NO_TIMES = {"delete_time": "NULL", "purge_time": "NULL"}
_ACTOR = {"actor_id": "$1::text", "actor_name": "'ada'"}
# Tables that a million versions have no rows in, or that hold what the installation knows of itself.
_UNFILLED = {"outbox_head", "deletion_claims"}


@dataclass(frozen=True)
class Rows:
    """How many rows a catalog of `size` versions has."""

    size: int

    @property
    def models(self) -> int:
        """Models beside the wide one."""
        return max(1, self.size // 100)

    @property
    def wide(self) -> int:
        """Versions of the wide model."""
        return self.size // 10

    def name(self, model: int) -> str:
        """Return the full name of a model, numbered from 1; 0 is the wide one."""
        return f"{CATALOG}.{SCHEMA}.{short_name(model)}"

    def versions_of(self, model: int) -> int:
        """Return how many versions a model has."""
        if model == 0:
            return self.wide
        narrow = self.size - self.wide
        return narrow // self.models + (model <= narrow % self.models)

    def numbered(self) -> str:
        """Return a query of all versions in the order in which they came, `g`, with the numbers of model and version."""
        models = self.models
        return f"""
            SELECT g, CASE WHEN g % 10 = 0 THEN 0 ELSE (g - g / 10 - 1) % {models} + 1 END AS model,
                CASE WHEN g % 10 = 0 THEN g / 10 ELSE (g - g / 10 - 1) / {models} + 1 END AS number
            FROM generate_series(1::bigint, {self.size}) g
        """


_DIGEST = "'sha256:' || md5('a' || g) || md5('b' || g)"
"""The artifact of a version, as SQL."""


def short_name(model: int) -> str:
    """Return the name of a model within its schema."""
    return f"m{model:05}" if model else WIDE


async def load(dsn: str, rows: Rows, owner_id: str) -> None:
    """Fill an empty, migrated catalog.

    Args:
        dsn: of the catalog's database; the role must be a superuser, who may leave foreign keys unchecked.
        rows: how many.
        owner_id: principal that all of it belongs to.

    Raises:
        ValueError: a table of the catalog has other columns than are filled here.
    """
    connection = await asyncpg.connect(dsn)
    try:
        # The rows fit together by construction: checking every foreign key would take longer than everything else.
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        await connection.execute("SET maintenance_work_mem = '512MB'; SET work_mem = '256MB'")
        await _plan(connection, rows)
        indexes = await _drop_indexes(connection)
        for table, (columns, source) in _statements(rows).items():
            await _fill(connection, tables.metadata.tables[table], columns, source, owner_id)
        for index in indexes:
            await connection.execute(index)
        last = "SELECT max(sequence) FROM outbox"
        await connection.execute(f"UPDATE outbox_head SET sequence = ({last})")
        await connection.execute("DROP TABLE planned")
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _plan(connection: asyncpg.Connection, rows: Rows) -> None:
    """Make the table of what there will be."""
    await connection.execute(
        f"""
        CREATE UNLOGGED TABLE planned AS
        SELECT g, model, number, md5('model ' || model)::uuid AS model_id,
            uuidv7(at - clock_timestamp()) AS id, at, hashint8(g * 7919) & 1048575 AS noise
        FROM (SELECT *, timestamptz '{BEGIN}' + g * interval '{STEP_SECONDS / 10} seconds' AS at FROM ({rows.numbered()}) n)
        """
    )


async def _drop_indexes(connection: asyncpg.Connection) -> list[str]:
    """Drop the indexes that no constraint stands on, and return what makes them again: at once is faster than row by row."""
    found = await connection.fetch(
        """
        SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
        WHERE indrelid = ANY($1::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        """,
        sorted(tables.metadata.tables),
    )
    for row in found:
        await connection.execute(f"DROP INDEX {row['name']}")
    return [row["definition"] for row in found]


async def _fill(
    connection: asyncpg.Connection, table: Table, columns: Mapping[str, str], source: str, owner_id: str
) -> None:
    given = {column.name for column in table.columns if column.identity is None}
    if given != set(columns):
        raise ValueError(
            f"{table.name}: columns {sorted(given ^ set(columns))} are in one of table and benchmark only"
        )
    names, values = ", ".join(columns), ", ".join(columns.values())
    # The owner is used in every statement, so that all of them have the same parameter.
    await connection.execute(
        f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {source} WHERE $1::text IS NOT NULL",
        owner_id,
    )


def _statements(rows: Rows) -> dict[str, tuple[dict[str, str], str]]:
    """Return, for each table, the SQL of its columns and what they are taken from; $1 is the owner."""
    statements = {
        **_containers(rows),
        "model_versions": _versions(),
        "artifact_tests": _artifact_tests(),
        "metrics": _metrics(),
        **_aliases(),
        **_lineage(),
        **_traces(),
    }
    if missing := set(tables.metadata.tables) - set(statements) - _UNFILLED:
        raise ValueError(f"nothing is put into {sorted(missing)}")
    return statements


def _containers(rows: Rows) -> dict[str, tuple[dict[str, str], str]]:
    common = {
        "description": "''",
        "tags": "'{}'::jsonb",
        "revision": "1",
        "create_time": f"timestamptz '{BEGIN}'",
        "update_time": f"timestamptz '{BEGIN}'",
        **_NO_TIMES,
        "owner_id": "$1::text",
    }
    catalog, schema = "md5('catalog')::uuid", "md5('schema')::uuid"
    counts = "(SELECT model, model_id, max(number) AS versions FROM planned GROUP BY 1, 2) counted"
    team = "jsonb_build_object('team', 'team-' || model % 8)"
    return {
        "catalogs": ({**common, "id": catalog, "name": f"'{CATALOG}'"}, "(VALUES (1)) one"),
        "schemas": (
            {**common, "id": schema, "catalog_id": catalog, "name": f"'{SCHEMA}'"},
            "(VALUES (1)) one",
        ),
        "models": (
            {
                **common,
                "id": "model_id",
                "tags": team,
                "schema_id": schema,
                "name": f"CASE model WHEN 0 THEN '{WIDE}' ELSE 'm' || lpad(model::text, 5, '0') END",
                "revision": "versions + 1",
                "latest_version": "versions",
            },
            counts,
        ),
    }


def _versions() -> tuple[dict[str, str], str]:
    words = "ARRAY['baseline', 'dropout', 'augmented', 'distilled', 'pruned', 'quantised', 'longer', 'wider']"
    frameworks = "ARRAY['pytorch', 'sklearn', 'xgboost', 'onnx', 'lightgbm']"
    framework = f"({frameworks})[noise % 5 + 1]"
    columns = {
        "id": "id",
        "description": f"'run ' || g || ': ' || ({words})[noise % 8 + 1] || ' on the data of week ' || noise % 52",
        "tags": "jsonb_build_object('run', 'run-' || g, 'team', 'team-' || noise % 8, 'stage', 'stage-' || noise % 3)",
        "revision": "1",
        "create_time": "at",
        "update_time": "at",
        **_NO_TIMES,
        "model_id": "model_id",
        "number": "number",
        "state": "CASE noise % 10 WHEN 0 THEN 'FAILED' WHEN 1 THEN 'PENDING' ELSE 'READY' END",
        "state_message": "CASE noise % 10 WHEN 0 THEN 'the upload was cut' ELSE '' END",
        "artifact_digest": "CASE WHEN noise % 10 < 2 THEN '' ELSE " + _DIGEST + " END",
        "runtime": framework,
        "signature": """'{"methods": [{"name": "predict", "input_layout": "TENSORS",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}]}]}'::jsonb""",
        "provenance": """jsonb_build_object('git_repository', 'https://git.example/ml', 'git_branch', 'main',
            'git_commit', md5('c' || g), 'git_dirty', false, 'source', 'train.py', 'python_version', '3.11')""",
        "metadata": f"""jsonb_build_object('use_case', 'BINARY_CLASSIFICATION', 'framework', {framework},
            'framework_version', '2.' || noise % 12, 'hyperparameters',
            jsonb_build_object('depth', noise % 12, 'rate', noise % 100 / 1000.0))""",
        "author_id": "$1::text",
        "author_name": "'ada'",
        # Every fifth has one, unique within its model.
        "label": "CASE number % 5 WHEN 0 THEN (number / 500 + 1) || '.' || number / 5 % 100 || '.0' ELSE '' END",
        "copied_from": "''",
        "copied_from_id": "''",
        "approval_state": "CASE noise % 20 WHEN 7 THEN 'APPROVED' ELSE 'NONE' END",
        "approval_sequence": "CASE noise % 20 WHEN 7 THEN g ELSE 0 END",
    }
    return columns, "planned"


def _artifact_tests() -> tuple[dict[str, str], str]:
    """Of every twentieth artifact, which is an OCI model artifact."""
    columns = {
        "digest": _DIGEST,
        "state": "CASE noise % 4 WHEN 0 THEN 'FAILED' ELSE 'PASSED' END",
        "results": """'{"score_py": {"category": "Mandatory Files Check", "success": true}}'::jsonb""",
        "sequence": "g",
        "update_time": "at",
    }
    return columns, "(SELECT * FROM planned WHERE g % 20 = 7 AND noise % 10 >= 2) tested"


def _metrics() -> tuple[dict[str, str], str]:
    """Four numbers for each version, and for every tenth a matrix, which is none."""
    columns = {
        "version_id": "id",
        "name": "name",
        "model_id": "model_id",
        "value": "coalesce(to_jsonb(value), '[[90, 10], [7, 93]]'::jsonb)",
        "number": "value",
    }
    source = """(
        SELECT id, model_id, name, (hashint8(g * 31 + place) & 1048575) / 1048576.0::float8
            / CASE WHEN name = 'confusion' THEN NULL ELSE 1 END AS value
        FROM planned, (VALUES (1, 'accuracy'), (2, 'f1'), (3, 'loss'), (4, 'auc'), (5, 'confusion')) m (place, name)
        WHERE name <> 'confusion' OR g % 10 = 3
    ) measured"""
    return columns, source


def _aliases() -> dict[str, tuple[dict[str, str], str]]:
    """`champion` and `challenger` in every model, moved there once before."""
    columns = {"model_id": "model_id", "alias": "alias", "number": "number"}
    source = """(
        SELECT model_id, alias, greatest(1, max(number) - back) AS number
        FROM planned, (VALUES ('champion', 5), ('challenger', 1)) a (alias, back) GROUP BY model_id, alias, back
    ) aliased"""
    moves = {
        "model_id": "model_id",
        "alias": "alias",
        "number_before": "step",
        "number_after": "CASE step WHEN 0 THEN 1 ELSE number END",
        **_ACTOR,
        "request_id": "gen_random_uuid()::text",
        "time": f"timestamptz '{BEGIN}'",
    }
    history = (
        f"(SELECT a.*, step FROM {source.replace(') aliased', ') a')}, generate_series(0, 1) step) moved"
    )
    return {"aliases": (columns, source), "alias_history": (moves, history)}


def _lineage() -> dict[str, tuple[dict[str, str], str]]:
    """Every tenth version was trained on one of a thousand data sets."""
    node = "md5('dataset ' || g / 10 % 1000)::uuid"
    nodes = {
        "id": "id",
        "kind": "kind",
        "name": "name",
        "version": "''",
        "digest": "''",
        "owner_id": "NULL",
        "schema_id": "NULL",
        "delete_time": "NULL",
    }
    sources = """(
        SELECT md5('dataset ' || n)::uuid AS id, 'DATASET' AS kind, 'dataset-' || n AS name
        FROM generate_series(0, 999) n
        UNION ALL SELECT id, 'MODEL_VERSION', '' FROM planned WHERE g % 10 = 5
    ) known"""
    edges = {
        "source_id": node,
        "target_id": "id",
        "relation": "'trained_on'",
        "target_kind": "'MODEL_VERSION'",
        "anchor_type": "NULL",
        "anchor_id": "NULL",
        **_ACTOR,
        "create_time": "at",
    }
    trained = "(SELECT * FROM planned WHERE g % 10 = 5) trained"
    return {"lineage_nodes": (nodes, sources), "lineage_edges": (edges, trained)}


def _traces() -> dict[str, tuple[dict[str, str], str]]:
    """The request and the event of each version."""
    name = (
        f"'{CATALOG}.{SCHEMA}.' || CASE model WHEN 0 THEN '{WIDE}' ELSE 'm' || lpad(model::text, 5, '0') END"
    )
    requests = {
        "principal_id": "$1::text",
        "method": "'create_model_version'",
        "request_id": "gen_random_uuid()::text",
        "fingerprint": "md5('f' || g) || md5('g' || g)",
        "resource_id": "id::text",
        "create_time": "at",
    }
    events = {
        "id": "uuidv7(at - clock_timestamp())::text",
        "type": "'catalog.model_version.created'",
        "resource_type": "'model_version'",
        "resource_id": "id::text",
        "resource_name": f"{name} || '/' || number",
        "owner_id": "''",
        **_ACTOR,
        "actor_kind": "'user'",
        "request_id": "gen_random_uuid()::text",
        "time": "at",
        "data": """jsonb_build_object('after', jsonb_build_object('model_id', model_id, 'number', number, 'state', 'READY',
            'artifact_digest', 'sha256:' || md5('a' || g) || md5('b' || g), 'description', 'run ' || g, 'label', '',
            'runtime', 'sklearn', 'tags', jsonb_build_object('run', 'run-' || g), 'metrics', '{"accuracy": 0.5}'::jsonb))""",
        "deliver_time": "at",
        "sequence": "g",
        "scope": "ARRAY[id, model_id, md5('schema')::uuid, md5('catalog')::uuid]",
    }
    return {"requests": (requests, "planned"), "outbox": (events, "planned")}
