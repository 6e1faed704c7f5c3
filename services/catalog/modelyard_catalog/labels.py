"""Labels: second names of versions, unique among the versions of a model and never the name of one of its aliases."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.additions import Told
from modelyard_catalog.models import Model, ModelVersion
from modelyard_catalog.store import CatalogStore
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.errors import AlreadyExists, InvalidField, NotFound
from modelyard_kit.idempotency import Claim


async def require_free_label(
    connection: AsyncConnection, store: CatalogStore, model: Link, label: str, *, field: str = "label"
) -> None:
    """Return if a version of the model may get the label; an empty one is no label.

    Raises:
        NotFound: the model does not exist.
        AlreadyExists: another version has it.
        InvalidField: an alias of the model is called so.
    """
    if not label:
        return
    found = await store.get(connection, Model, model.id)
    if found is None:
        raise NotFound(model.type, model.name)
    if label in found.aliases:
        raise InvalidField(field, f"{label!r} is an alias of {model.name!r}; choose another label")
    if await store.labels(connection, model.id, [label]):
        raise AlreadyExists(ResourceType.MODEL_VERSION, f"{model.name}@{label}")


async def add_versions(
    connection: AsyncConnection,
    store: CatalogStore,
    versions: Sequence[ModelVersion],
    told: Told,
    claims: Sequence[Claim] = (),
) -> None:
    """Insert versions of models that this transaction has locked, the events that tell of them, and the claims of their requests.

    Raises:
        Repeated: a request came before.
        AlreadyExists: another version of the model has the label.
        InvalidField: an alias of the model is called so.
    """
    for version in versions:
        await require_free_label(connection, store, version.model, version.label)
    if not await store.insert_versions(connection, versions, told, claims):
        # Given meanwhile to a version that exists, which does not wait for the row of the model; or to another of these. Whose label
        # it was does not matter if they are several: then they are added one by one.
        labelled = next(version for version in versions if version.label)
        raise AlreadyExists(labelled.kind, f"{labelled.model.name}@{labelled.label}")
