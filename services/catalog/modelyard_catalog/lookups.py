"""Queries of one resource by id, name or reference.

Calls make them again and again, and to build one takes longer than PostgreSQL takes to answer it. So they are built once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select

from modelyard_catalog.commands import VersionRef
from modelyard_catalog.models import (
    CONTAINERS,
    ComputedAlias,
    Model,
    ModelVersion,
    Path,
    Resource,
    VersionState,
)
from modelyard_catalog.rows import levels, select_live
from modelyard_catalog.tables import aliases, model_versions, models


def names(path: Path) -> dict[str, str]:
    """Return the parameters of a query of, or in, the catalog, schema or model with this name."""
    return {f"name_{up}": part for up, part in enumerate(reversed(path))}


def version(ref: VersionRef) -> tuple[Select[Any], dict[str, Any]]:
    """Return the query of the version that a reference names, and its parameters."""
    named = names(ref.model)
    if ref.number is not None:
        return _BY_NUMBER, named | {"number": ref.number}
    alias = ref.alias if ref.alias is not None else ComputedAlias.DEFAULT
    if alias in _COMPUTED:
        return _COMPUTED[alias], named
    return _BY_ALIAS_OR_LABEL, named | {"alias": alias}


def called(kind: type[Resource]) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions that give a kind and its containers the names of `names`."""
    return (table.c.name == bindparam(f"name_{up}") for up, table in enumerate(levels(kind)))


def _number_of_alias_or_label() -> ColumnElement[int]:
    """Return the number that an alias or a label of the model of the query means; no name is both."""
    name: ColumnElement[str] = bindparam("alias")
    aliased = select(aliases.c.number).where(aliases.c.model_id == models.c.id, aliases.c.alias == name)
    labelled = model_versions.alias("labelled")
    named = select(labelled.c.number).where(
        labelled.c.model_id == models.c.id,
        labelled.c.label == name,
        labelled.c.label != "",
        labelled.c.delete_time.is_(None),
    )
    return func.coalesce(
        aliased.correlate(models).scalar_subquery(), named.correlate(models).scalar_subquery()
    )


BY_NAME: Mapping[type[Resource], Select[Any]] = {
    kind: select_live(kind).where(*called(kind)) for kind in CONTAINERS
}
"""With `names`: a catalog, schema or model."""

BY_ID: Mapping[type[Resource], Select[Any]] = {
    kind: select_live(kind).where(levels(kind)[0].c.id == bindparam("id"))
    for kind in (*CONTAINERS, ModelVersion)
}
"""With `id`: anything."""

_number = model_versions.c.number
_of_model = select_live(ModelVersion).where(*called(Model))
_ready = _of_model.where(model_versions.c.state == VersionState.READY).limit(1)
_BY_NUMBER = _of_model.where(_number == bindparam("number"))
_BY_ALIAS_OR_LABEL = _of_model.where(_number == _number_of_alias_or_label())
_COMPUTED: Mapping[str, Select[Any]] = {
    ComputedAlias.FIRST: _ready.order_by(_number),
    ComputedAlias.LAST: _ready.order_by(_number.desc()),
    ComputedAlias.DEFAULT: _ready.order_by(_number.desc()),
}
