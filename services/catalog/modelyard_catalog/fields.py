"""What each list of the catalog can be filtered and ordered by; docs/filters.md has a table of it, made from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.types import Text

from modelyard_catalog.models import (
    ApprovalState,
    ArtifactTestsState,
    Catalog,
    Model,
    ModelVersion,
    Resource,
    Schema,
    VersionState,
)
from modelyard_catalog.tables import (
    alias_history,
    aliases,
    artifact_tests,
    catalogs,
    metrics,
    model_versions,
    models,
    schemas,
)
from modelyard_kit.filters import AnyField, Field, FieldType, ListFields, MapField, SetField, json_text

MetricLookup = Callable[[str], ColumnElement[float]]
"""The number that a version has as a metric; NULL without the metric, or if it is no number."""

CUSTOM = "custom."
METADATA = ("use_case", "framework", "framework_version", "algorithm", f"{CUSTOM}<key>")
_CUSTOM_VALUE = "$.custom[*] ? (@.key == $key).value"


def list_fields(kind: type[Resource], metric: MetricLookup) -> ListFields:
    """Return the fields of the list of a kind; only versions have metrics to look up."""
    return _version_fields(metric) if kind is ModelVersion else _CONTAINERS[kind]


def _common(table: Any) -> dict[str, AnyField]:
    return {
        "id": Field(FieldType.ID, table.c.id, required=True),
        "description": Field(FieldType.TEXT, table.c.description, required=True),
        "tags": MapField(
            FieldType.TEXT,
            lambda key: json_text(table.c.tags, key),
            holds=lambda key, value: table.c.tags.contains({key: value}),
        ),
        "create_time": Field(FieldType.TIMESTAMP, table.c.create_time, required=True),
        "update_time": Field(FieldType.TIMESTAMP, table.c.update_time, required=True),
        "delete_time": Field(FieldType.TIMESTAMP, table.c.delete_time),
    }


def _container(table: Any) -> dict[str, AnyField]:
    return {
        "name": Field(FieldType.TEXT, table.c.name, required=True),
        "owner_id": Field(FieldType.TEXT, table.c.owner_id, required=True),
        "owner": Field(FieldType.PRINCIPAL, table.c.owner_id, required=True),
        **_common(table),
    }


def _aliases_of(*where: ColumnElement[bool]) -> Select[tuple[str]]:
    return select(aliases.c.alias).where(*where)


_CONTAINERS: Mapping[type[Resource], ListFields] = {
    Catalog: ListFields(_container(catalogs), unique="id"),
    Schema: ListFields(_container(schemas), unique="id"),
    Model: ListFields(
        {
            **_container(models),
            "latest_version": Field(FieldType.INTEGER, models.c.latest_version, required=True),
            "alias": SetField(_aliases_of(aliases.c.model_id == models.c.id)),
        },
        unique="id",
    ),
}


ALIAS_MOVES = ListFields(
    {
        "sequence": Field(FieldType.INTEGER, alias_history.c.sequence, required=True),
        "alias": Field(FieldType.TEXT, alias_history.c.alias, required=True),
        "previous_version": Field(FieldType.INTEGER, alias_history.c.number_before, required=True),
        "version": Field(FieldType.INTEGER, alias_history.c.number_after, required=True),
        "moved_by": Field(FieldType.TEXT, alias_history.c.actor_name, required=True),
        "move_time": Field(FieldType.TIMESTAMP, alias_history.c.time, required=True),
    },
    unique="sequence",
    default_order="sequence desc",
    orders=("sequence",),
)


def _version_fields(metric: MetricLookup) -> ListFields:
    # A list has the versions of one model, in which no number is there twice.
    fields = {**_OF_VERSIONS, "metrics": MapField(FieldType.REAL, metric)}
    return ListFields(fields, unique="number", default_order="number desc")


def _metadata(key: str) -> ColumnElement[str]:
    """Return one fact of the metadata of a version; the key is one of `METADATA`."""
    if not key.startswith(CUSTOM):
        return json_text(model_versions.c.metadata, key)
    wanted = func.jsonb_build_object("key", cast(key.removeprefix(CUSTOM), Text))
    found = func.jsonb_path_query_first(model_versions.c.metadata, cast(_CUSTOM_VALUE, JSONPATH), wanted)
    text: ColumnElement[str] = found.op("#>>", return_type=Text())(cast([], ARRAY(Text)))
    return text


_row = model_versions.c
_OF_VERSIONS: Mapping[str, AnyField] = {
    "number": Field(FieldType.INTEGER, _row.number, required=True),
    "state": Field(FieldType.ENUM, _row.state, tuple(VersionState), required=True),
    # NULL until the artifact was inspected, and where there is nothing to test.
    "artifact_tests": Field(FieldType.ENUM, artifact_tests.c.state, tuple(ArtifactTestsState)),
    "approval": Field(FieldType.ENUM, _row.approval_state, tuple(ApprovalState), required=True),
    **_common(model_versions),
    **{
        name: Field(FieldType.TEXT, _row[name], required=True)
        for name in (
            "label",
            "state_message",
            "runtime",
            "artifact_digest",
            "author_id",
            "author_name",
            "copied_from",
            "copied_from_id",
        )
    },
    **{
        f"provenance.{name}": Field(FieldType.TEXT, json_text(_row.provenance, name))
        for name in ("git_repository", "git_branch", "git_commit", "source", "python_version")
    },
    "alias": SetField(_aliases_of(aliases.c.model_id == _row.model_id, aliases.c.number == _row.number)),
    "metadata": MapField(FieldType.TEXT, _metadata, known=METADATA),
}
"""Fields of versions but for their metrics, which each query looks up in its own way."""

LISTS: Mapping[str, ListFields] = {
    "ListCatalogs": _CONTAINERS[Catalog],
    "ListSchemas": _CONTAINERS[Schema],
    "ListModels": _CONTAINERS[Model],
    "ListModelVersions": _version_fields(lambda _: metrics.c.number),
    "ListAliasHistory": ALIAS_MOVES,
}
"""Fields of each list, by its RPC; for documents and tests."""
