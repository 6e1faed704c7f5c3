"""Complete rows in one query each, and the values made of them.

A row brings its containers, its aliases and its metrics along, so that no list needs a query per row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, FromClause, Row, Select, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.types import Text

from modelyard_catalog.models import (
    ApprovalState,
    ArtifactTests,
    ArtifactTestsState,
    Catalog,
    CustomMetadata,
    DatasetReference,
    InputLayout,
    Json,
    MetadataCategory,
    MethodSignature,
    Model,
    ModelMetadata,
    ModelVersion,
    Provenance,
    Resource,
    Schema,
    Signature,
    TensorSpec,
    VersionState,
)
from modelyard_catalog.tables import (
    aliases,
    catalogs,
    metrics,
    model_versions,
    models,
    schemas,
    tests_of_version,
)
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType

R = TypeVar("R", bound=Resource)

_IN_CATALOG = schemas.join(catalogs, schemas.c.catalog_id == catalogs.c.id)
_IN_SCHEMA = models.join(schemas, models.c.schema_id == schemas.c.id).join(
    catalogs, schemas.c.catalog_id == catalogs.c.id
)
_IN_MODEL = model_versions.join(models, model_versions.c.model_id == models.c.id).join(
    _IN_CATALOG, models.c.schema_id == schemas.c.id
)

_ALIASES_OF_MODEL = (
    select(func.jsonb_object_agg(aliases.c.alias, aliases.c.number, type_=JSONB))
    .where(aliases.c.model_id == models.c.id)
    .correlate(models)
    .scalar_subquery()
    .label("aliases")
)
_ALIASES_OF_VERSION = (
    select(
        func.array_agg(aggregate_order_by(aliases.c.alias, aliases.c.alias.collate("C")), type_=ARRAY(Text))
    )
    .where(aliases.c.model_id == model_versions.c.model_id, aliases.c.number == model_versions.c.number)
    .correlate(model_versions)
    .scalar_subquery()
    .label("aliases")
)
_METRICS = (
    select(func.jsonb_object_agg(metrics.c.name, metrics.c.value, type_=JSONB))
    .where(metrics.c.version_id == model_versions.c.id)
    .correlate(model_versions)
    .scalar_subquery()
    .label("metrics")
)


def _container(table: Any, prefix: str) -> list[ColumnElement[Any]]:
    return [table.c[name].label(f"{prefix}_{name}") for name in ("id", "name", "owner_id")]


_SELECTS: Mapping[type[Resource], tuple[FromClause, list[Any]]] = {
    Catalog: (catalogs, [catalogs]),
    Schema: (_IN_CATALOG, [schemas, *_container(catalogs, "catalog")[1:]]),
    Model: (
        _IN_SCHEMA,
        [models, *_container(schemas, "schema")[1:], *_container(catalogs, "catalog"), _ALIASES_OF_MODEL],
    ),
    ModelVersion: (
        _IN_MODEL,
        [
            model_versions,
            tests_of_version().label("tests"),
            *_container(models, "model")[1:],
            *_container(schemas, "schema"),
            *_container(catalogs, "catalog"),
            _ALIASES_OF_VERSION,
            _METRICS,
        ],
    ),
}
_LEVELS: Mapping[type[Resource], tuple[Any, ...]] = {
    Catalog: (catalogs,),
    Schema: (schemas, catalogs),
    Model: (models, schemas, catalogs),
    ModelVersion: (model_versions, models, schemas, catalogs),
}


def levels(kind: type[Resource]) -> tuple[Any, ...]:
    """Return the table of a kind followed by the tables of its containers."""
    return _LEVELS[kind]


def _live(kind: type[Resource], *, show_deleted: bool, show_hidden: bool) -> Select[Any]:
    own, *containers = _LEVELS[kind]
    hiding = [*([] if show_deleted else [own]), *([] if show_hidden else containers)]
    return select_any(kind).where(*(table.c.delete_time.is_(None) for table in hiding))


def select_any(kind: type[Resource]) -> Select[Any]:
    """Return the query of complete rows of a kind, deleted or not."""
    source, columns = _SELECTS[kind]
    return select(*columns).select_from(source)


_LIVE = {
    (kind, deleted, hidden): _live(kind, show_deleted=deleted, show_hidden=hidden)
    for kind in _LEVELS
    for deleted in (False, True)
    for hidden in (False, True)
}


def select_live(
    kind: type[Resource], *, show_deleted: bool = False, show_hidden: bool = False
) -> Select[Any]:
    """Return the query of complete rows of a kind that are not deleted, and in nothing deleted, unless those are to be shown."""
    return _LIVE[kind, show_deleted, show_hidden]


def select_chains() -> Select[Any]:
    """Return the query of versions that are not deleted, with their digests and containers and nothing else."""
    own = [model_versions.c.id, model_versions.c.number, model_versions.c.artifact_digest]
    live = (table.c.delete_time.is_(None) for table in _LEVELS[ModelVersion])
    return select(*own, *model_columns()).select_from(_IN_MODEL).where(*live)


def model_columns() -> list[ColumnElement[Any]]:
    """Return the columns that `read_model_chain` reads."""
    containers = ((models, "model"), (schemas, "schema"), (catalogs, "catalog"))
    return [column for table, prefix in containers for column in _container(table, prefix)]


def read_chain(row: Row[Any]) -> Chain:
    """Return the version and its containers in a row of `select_chains()`."""
    parents = read_model_chain(row)
    return (Link(ResourceType.MODEL_VERSION, row.id, f"{parents[0].name}/{row.number}"), *parents)


def read_row(kind: type[R], row: Row[Any]) -> R:
    """Return the value of a row of `select_live(kind)` or `select_any(kind)`."""
    return cast("R", _READERS[kind](row))


def _common(row: Row[Any], name: str, owner_id: str, parents: Chain) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": name,
        "description": row.description,
        "owner_id": owner_id,
        "tags": row.tags,
        "revision": row.revision,
        "create_time": row.create_time,
        "update_time": row.update_time,
        "delete_time": row.delete_time,
        "purge_time": row.purge_time,
        "parents": parents,
    }


# Rows of a page are mostly in the same containers.


@lru_cache(maxsize=1024)
def _in_catalog(id: str, name: str, owner_id: str) -> Chain:  # noqa: A002 - what it is
    return (Link(ResourceType.CATALOG, id, name, owner_id), SYSTEM)


@lru_cache(maxsize=1024)
def _in_schema(id: str, name: str, owner_id: str, parents: Chain) -> Chain:  # noqa: A002
    return (Link(ResourceType.SCHEMA, id, f"{parents[0].name}.{name}", owner_id), *parents)


@lru_cache(maxsize=1024)
def _in_model(id: str, name: str, owner_id: str, parents: Chain) -> Chain:  # noqa: A002
    return (Link(ResourceType.MODEL, id, f"{parents[0].name}.{name}", owner_id), *parents)


def _catalog_chain(row: Row[Any]) -> Chain:
    return _in_catalog(row.catalog_id, row.catalog_name, row.catalog_owner_id)


def _schema_chain(row: Row[Any]) -> Chain:
    return _in_schema(row.schema_id, row.schema_name, row.schema_owner_id, _catalog_chain(row))


def read_model_chain(row: Row[Any]) -> Chain:
    """Return the model and its containers in a row that has `model_columns()`."""
    return _in_model(row.model_id, row.model_name, row.model_owner_id, _schema_chain(row))


def _catalog(row: Row[Any]) -> Catalog:
    return Catalog(**_common(row, row.name, row.owner_id, (SYSTEM,)))


def _schema(row: Row[Any]) -> Schema:
    parents = _catalog_chain(row)
    return Schema(**_common(row, f"{parents[0].name}.{row.name}", row.owner_id, parents))


def _model(row: Row[Any]) -> Model:
    parents = _schema_chain(row)
    common = _common(row, f"{parents[0].name}.{row.name}", row.owner_id, parents)
    return Model(**common, aliases=row.aliases or {}, latest_version=row.latest_version)


def _version(row: Row[Any]) -> ModelVersion:
    parents = read_model_chain(row)
    return ModelVersion(
        **_common(row, f"{parents[0].name}/{row.number}", "", parents),
        number=row.number,
        state=VersionState(row.state),
        state_message=row.state_message,
        artifact_digest=row.artifact_digest,
        runtime=row.runtime,
        signature=signature_from_json(row.signature),
        metrics={name: _doubles(value) for name, value in (row.metrics or {}).items()},
        provenance=provenance_from_json(row.provenance),
        metadata=metadata_from_json(row.metadata),
        aliases=tuple(row.aliases or ()),
        author_id=row.author_id,
        author_name=row.author_name,
        label=row.label,
        copied_from=row.copied_from,
        copied_from_id=row.copied_from_id,
        approval_state=ApprovalState(row.approval_state),
        artifact_tests=_artifact_tests(row.tests),
    )


def _artifact_tests(told: Any) -> ArtifactTests | None:
    if told is None:
        return None
    state, results = told
    return ArtifactTests(ArtifactTestsState(state), results)


_READERS: Mapping[type[Resource], Callable[[Row[Any]], Resource]] = {
    Catalog: _catalog,
    Schema: _schema,
    Model: _model,
    ModelVersion: _version,
}


def _doubles(value: Json) -> Json:
    """Return a JSON value with every number as the double that came in; PostgreSQL writes 1e300 as an integer."""
    match value:
        case float() | bool():
            return value
        case int():
            return float(value)
        case list():
            return [_doubles(item) for item in value]
        case dict():
            return {name: _doubles(item) for name, item in value.items()}
        case _:
            return value


def signature_to_json(signature: Signature | None) -> Json:
    """Return what is stored for a signature."""
    return None if signature is None else cast("Json", asdict(signature))


def signature_from_json(stored: Any) -> Signature | None:
    """Return the signature of what was stored for it."""
    return None if stored is None else Signature(tuple([_method(item) for item in stored["methods"]]))


def provenance_from_json(stored: Any) -> Provenance | None:
    """Return the provenance of what was stored for it."""
    if stored is None:
        return None
    datasets = tuple([DatasetReference(**item) for item in stored.get("datasets", ())])
    return Provenance(**{**stored, "datasets": datasets})


def metadata_to_json(metadata: ModelMetadata | None) -> Json:
    """Return what is stored for metadata: only what was given."""
    if metadata is None:
        return None
    return {name: value for name, value in asdict(metadata).items() if value}


def metadata_from_json(stored: Any) -> ModelMetadata | None:
    """Return the metadata of what was stored for it."""
    if stored is None:
        return None
    given = dict(stored)
    for name in ("hyperparameters", "test_results"):
        if name in given:
            given[name] = _doubles(given[name])
    if "custom" in given:
        given["custom"] = tuple(map(_custom, given["custom"]))
    return ModelMetadata(**given)


def _custom(stored: dict[str, Any]) -> CustomMetadata:
    return CustomMetadata(**{**stored, "category": MetadataCategory(stored["category"])})


def _method(stored: Any) -> MethodSignature:
    layout = InputLayout(stored["input_layout"])
    return MethodSignature(stored["name"], _tensors(stored["inputs"]), _tensors(stored["outputs"]), layout)


def _tensors(stored: Any) -> tuple[TensorSpec, ...]:
    return tuple([TensorSpec(item["name"], item["datatype"], tuple(item["shape"])) for item in stored])
