"""Renames, deletions and what they leave, in PostgreSQL. Every method runs in the caller's transaction and never commits.

To delete is to mark one row: what it contains is hidden with it, and comes back with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Select, delete, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import artifact_tests_store
from modelyard_catalog.models import Catalog, Model, ModelVersion, Resource, Schema, VersionState
from modelyard_catalog.rows import levels, read_row, select_any
from modelyard_catalog.tables import (
    alias_history,
    aliases,
    metrics,
    model_versions,
    models,
    schemas,
)
from modelyard_kit.access import ResourceType

R = TypeVar("R", bound=Resource)

_ON_ITS_WAY = timedelta(hours=48)
"""Age up to which the artifact service may have told of an artifact for a version that is being made: as it keeps references."""

CHILDREN: dict[type[Resource], type[Resource]] = {Catalog: Schema, Schema: Model, Model: ModelVersion}
"""What a container contains."""

BY_TYPE: dict[ResourceType, type[Resource]] = {
    kind.kind: kind for kind in (Catalog, Schema, Model, ModelVersion)
}

_PARENT: dict[type[Resource], Any] = {
    Schema: schemas.c.catalog_id,
    Model: models.c.schema_id,
    ModelVersion: model_versions.c.model_id,
}


class LifecycleStore:
    """Reads and writes of changes to whole resources."""

    async def get_any(self, connection: AsyncConnection, kind: type[R], id: str) -> R | None:  # noqa: A002 - what it is
        """Return the resource with this id, deleted or not."""
        row = (await connection.execute(select_any(kind).where(levels(kind)[0].c.id == id))).one_or_none()
        return None if row is None else read_row(kind, row)

    async def change(
        self,
        connection: AsyncConnection,
        resource: Resource,
        time: datetime,
        **values: Any,
    ) -> bool:
        """Write columns of a resource; False, and nothing is written, if its name would be taken."""
        table = levels(type(resource))[0]
        statement = update(table).where(table.c.id == resource.id)
        try:
            async with connection.begin_nested():
                await connection.execute(
                    statement.values(revision=table.c.revision + 1, update_time=time, **values)
                )
        except IntegrityError as error:
            if getattr(error.orig, "sqlstate", None) != "23505":
                raise
            return False
        return True

    async def children(
        self, connection: AsyncConnection, resource: Resource, limit: int
    ) -> tuple[list[str], int]:
        """Return own names (of versions, numbers) of the first children that are not deleted, and how many there are."""
        kind = CHILDREN[type(resource)]
        table = levels(kind)[0]
        name = table.c.number if kind is ModelVersion else table.c.name
        live = (_PARENT[kind] == resource.id, table.c.delete_time.is_(None))
        found = await connection.execute(select(name).where(*live).order_by(table.c.id).limit(limit))
        count = await connection.execute(select(func.count()).select_from(table).where(*live))
        return [str(row[0]) for row in found], int(count.scalar_one())

    async def ready_versions(
        self, connection: AsyncConnection, resource: Resource, *, after: str | None, limit: int
    ) -> list[str]:
        """Return ids of the versions that could be deployed, of a resource and all in it, in order, after the id `after`."""
        kind = type(resource)
        query = select(model_versions.c.id)
        if kind in (Schema, Catalog):
            query = query.join(models, model_versions.c.model_id == models.c.id)
        if kind is Catalog:
            query = query.join(schemas, models.c.schema_id == schemas.c.id)
        of: dict[type[Resource], Any] = {
            ModelVersion: model_versions.c.id,
            Model: model_versions.c.model_id,
            Schema: models.c.schema_id,
            Catalog: schemas.c.catalog_id,
        }
        query = query.where(of[kind] == resource.id, model_versions.c.state == VersionState.READY)
        if after is not None:
            query = query.where(model_versions.c.id > after)
        rows = await connection.execute(query.order_by(model_versions.c.id).limit(limit))
        return [str(row[0]) for row in rows]

    async def live_schemas(self, connection: AsyncConnection, catalog: Catalog) -> list[str]:
        """Return the full names of the schemas of a catalog."""
        query = select(schemas.c.name).where(
            schemas.c.catalog_id == catalog.id, schemas.c.delete_time.is_(None)
        )
        return [f"{catalog.name}.{row[0]}" for row in await connection.execute(query.order_by(schemas.c.id))]

    async def aliases_lost(self, connection: AsyncConnection, version: ModelVersion) -> list[str]:
        """Return the aliases that the deletion of a version removed; their history tells."""
        query = select(alias_history.c.alias).where(
            alias_history.c.model_id == version.model.id,
            alias_history.c.number_before == version.number,
            alias_history.c.number_after == 0,
            alias_history.c.time == version.delete_time,
        )
        return [row[0] for row in await connection.execute(query.order_by(alias_history.c.sequence))]

    # The purge.

    async def overdue(self, connection: AsyncConnection, kind: type[R], now: datetime, limit: int) -> list[R]:
        """Return resources that can no longer be undeleted, longest ago first."""
        table = levels(kind)[0]
        query = select_any(kind).where(table.c.purge_time <= now).order_by(table.c.purge_time).limit(limit)
        return [read_row(kind, row) for row in await connection.execute(query)]

    async def purge_part(
        self, connection: AsyncConnection, resource: Resource, now: datetime, limit: int
    ) -> bool:
        """Remove up to `limit` rows of what a resource contains, innermost first; False when there is none, or it came back.

        Its own row is written as it was: whoever has read it to bring it back begins again, and finds its time over.
        """
        table = levels(type(resource))[0]
        overdue = update(table).where(table.c.id == resource.id, table.c.purge_time <= now)
        written = overdue.values(purge_time=table.c.purge_time).returning(table.c.id)
        if (await connection.execute(written)).one_or_none() is None:
            return False
        for query in _inside(resource):
            ids = [row[0] for row in await connection.execute(query.limit(limit))]
            if ids:
                await self._remove(connection, query.selected_columns[0].table, ids, now)
                return True
        return False

    async def purge_row(self, connection: AsyncConnection, resource: Resource, now: datetime) -> bool:
        """Remove the row of a resource that contains nothing any more; False if that is done, or it came back."""
        table = levels(type(resource))[0]
        locked = select(table.c.id).where(table.c.id == resource.id, table.c.purge_time <= now)
        if (await connection.execute(locked.with_for_update())).one_or_none() is None:
            return False
        await self._remove(connection, table, [resource.id], now)
        return True

    async def _remove(
        self, connection: AsyncConnection, table: Any, ids: Sequence[str], now: datetime
    ) -> None:
        tested: Sequence[str] = ()
        if table is model_versions:
            tested = await artifact_tests_store.digests_of(connection, ids)
            await connection.execute(delete(metrics).where(metrics.c.version_id.in_(ids)))
            pointed_at = (
                aliases.c.model_id == model_versions.c.model_id,
                aliases.c.number == model_versions.c.number,
                model_versions.c.id.in_(ids),
            )
            await connection.execute(delete(aliases).where(*pointed_at))
        if table is models:
            await connection.execute(text("SELECT set_config('modelyard.purge', 'on', true)"))
            await connection.execute(delete(alias_history).where(alias_history.c.model_id.in_(ids)))
        await connection.execute(delete(table).where(table.c.id.in_(ids)))
        if tested:
            await artifact_tests_store.forget(connection, tested, now - _ON_ITS_WAY)


def _inside(resource: Resource) -> list[Select[Any]]:
    """Return queries of the ids of everything in a resource, innermost kind first."""
    of_model = select(model_versions.c.id)
    of_schema = of_model.join(models, model_versions.c.model_id == models.c.id)
    of_catalog = of_schema.join(schemas, models.c.schema_id == schemas.c.id)
    models_of_catalog = select(models.c.id).join(schemas, models.c.schema_id == schemas.c.id)
    match resource:
        case Model():
            return [of_model.where(model_versions.c.model_id == resource.id)]
        case Schema():
            return [
                of_schema.where(models.c.schema_id == resource.id),
                select(models.c.id).where(models.c.schema_id == resource.id),
            ]
        case Catalog():
            return [
                of_catalog.where(schemas.c.catalog_id == resource.id),
                models_of_catalog.where(schemas.c.catalog_id == resource.id),
                select(schemas.c.id).where(schemas.c.catalog_id == resource.id),
            ]
        case _:
            return []
