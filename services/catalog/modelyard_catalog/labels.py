"""Labels: second names of versions, unique among the versions of a model and never the name of one of its aliases."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.models import Model
from modelyard_catalog.store import CatalogStore
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import AlreadyExists, InvalidField


async def require_free_label(
    connection: AsyncConnection, store: CatalogStore, model: Model, label: str, *, field: str = "label"
) -> None:
    """Return if a version of the model may get the label; an empty one is no label.

    Raises:
        AlreadyExists: another version has it.
        InvalidField: an alias of the model is called so.
    """
    if not label:
        return
    if label in model.aliases:
        raise InvalidField(field, f"{label!r} is an alias of {model.name!r}; choose another label")
    if await store.labels(connection, model.id, [label]):
        raise AlreadyExists(ResourceType.MODEL_VERSION, f"{model.name}@{label}")
