"""What each list of the catalog can be filtered and ordered by; the comments of the contract say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.types import Text

from modelyard_catalog.models import Catalog, Model, ModelVersion, Resource, Schema, VersionState
from modelyard_catalog.tables import aliases, catalogs, model_versions, models, schemas
from modelyard_kit.filters import AnyField, Field, FieldType, ListFields, MapField, SetField, json_text

MetricLookup = Callable[[str], ColumnElement[float]]
"""The number that a version has as a metric; NULL without the metric, or if it is no number."""

METADATA = ("use_case", "framework", "framework_version", "algorithm")
CUSTOM = "custom."
_CUSTOM_VALUE = "$.custom[*] ? (@.key == $key).value"


def list_fields(kind: type[Resource], metric: MetricLookup) -> ListFields:
    """Return the fields of the list of a kind; only versions have metrics to look up."""
    return _version_fields(metric) if kind is ModelVersion else _CONTAINERS[kind]


def metadata_problem(key: str) -> str:
    """Return what is wrong with a key of `metadata`; "" if nothing is."""
    if key in METADATA or (key.startswith(CUSTOM) and key != CUSTOM):
        return ""
    return f"unknown field 'metadata.{key}'; known: {', '.join(METADATA)} and {CUSTOM}<key> of metadata"


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


def _version_fields(metric: MetricLookup) -> ListFields:
    # A list has the versions of one model, in which no number is there twice.
    fields = {**_OF_VERSIONS, "metrics": MapField(FieldType.REAL, metric)}
    return ListFields(fields, unique="number", default_order="number desc")


def _metadata(key: str) -> ColumnElement[str]:
    """Return one fact of the metadata of a version; NULL for what is no fact: `metadata_problem` tells of those."""
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
    "metadata": MapField(FieldType.TEXT, _metadata),
}
"""Fields of versions but for their metrics, which each query looks up in its own way."""
