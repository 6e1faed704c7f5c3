"""The catalog in PostgreSQL. Every method runs in the caller's transaction and never commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    Row,
    Text,
    any_,
    bindparam,
    cast,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import additions, lookups
from modelyard_catalog.commands import ApprovalChange, ById, Container, VersionRef
from modelyard_catalog.models import (
    AliasMove,
    Json,
    Model,
    ModelVersion,
    Path,
    Resource,
    VersionState,
)
from modelyard_catalog.rows import (
    levels,
    read_model_chain,
    read_row,
    select_any,
    select_live,
)
from modelyard_catalog.search import PARENT_COLUMN
from modelyard_catalog.tables import (
    alias_history,
    aliases,
    metrics,
    model_versions,
)
from modelyard_kit.access import Chain
from modelyard_kit.auth import Call
from modelyard_kit.idempotency import Claim

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class CatalogStore:
    """Reads and writes of the catalog's tables."""

    # Reads. Deleted rows, and rows in deleted containers, are never seen.

    async def find(self, connection: AsyncConnection, kind: type[R], path: Path) -> R | None:
        """Return the catalog, schema or model with this name."""
        [found] = await self.find_each(connection, kind, [path])
        return found

    async def find_each(
        self, connection: AsyncConnection, kind: type[R], paths: Sequence[Path]
    ) -> list[R | None]:
        """Return the catalogs, schemas or models with these names."""
        rows = await lookups.BY_NAME[kind].rows(connection, lookups.names(paths))
        return _placed(rows, len(paths), lambda row: read_row(kind, row))

    async def get(self, connection: AsyncConnection, kind: type[R], id: str) -> R | None:  # noqa: A002 - what it is
        """Return the resource with this id."""
        rows = await lookups.BY_ID[kind].execute(connection, {"id": id})
        return read_row(kind, rows[0]) if rows else None

    async def contained(self, connection: AsyncConnection, kind: type[R], container: Container) -> R | None:
        """Return what a list is of: by its name, if it is not deleted; by its id, whatever became of it."""
        if not isinstance(container, ById):
            return await self.find(connection, kind, container)
        query = select_any(kind).where(levels(kind)[0].c.id == container.id)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else read_row(kind, row)

    async def version(self, connection: AsyncConnection, ref: VersionRef) -> ModelVersion | None:
        """Return the version that a reference names at this moment."""
        [found] = await self.versions(connection, [ref])
        return found

    async def versions(
        self, connection: AsyncConnection, refs: Sequence[VersionRef]
    ) -> list[ModelVersion | None]:
        """Return the versions that references name at this moment."""
        rows = await lookups.VERSIONS.rows(connection, lookups.versions(refs))
        return _placed(rows, len(refs), lambda row: read_row(ModelVersion, row))

    async def versions_by_number(
        self, connection: AsyncConnection, model_id: str, numbers: Iterable[int]
    ) -> dict[int, ModelVersion]:
        """Return those of the numbers that exist in a model."""
        query = select_live(ModelVersion).where(
            model_versions.c.model_id == model_id, model_versions.c.number.in_(sorted(set(numbers)))
        )
        rows = await connection.execute(query)
        return {row.number: read_row(ModelVersion, row) for row in rows}

    async def used_digests(self, connection: AsyncConnection, digests: Sequence[str]) -> list[str]:
        """Return which of these artifacts a version has, deleted or not."""
        used = model_versions.c.artifact_digest
        query = select(used).distinct().where(used == any_(cast(list(digests), ARRAY(Text))))
        return list((await connection.execute(query)).scalars())

    async def labels(
        self, connection: AsyncConnection, model_id: str, labels: Iterable[str]
    ) -> dict[str, int]:
        """Return those of the labels that versions of a model have, with the numbers of the versions."""
        query = select(model_versions.c.label, model_versions.c.number).where(
            model_versions.c.model_id == model_id,
            model_versions.c.label.in_(sorted(labels)),
            model_versions.c.label != "",
            model_versions.c.delete_time.is_(None),
        )
        return {row.label: row.number for row in await connection.execute(query)}

    async def alias_history(self, connection: AsyncConnection, model_id: str) -> list[AliasMove]:
        """Return every move of every alias of a model, oldest first."""
        query = (
            select(alias_history.c.alias, alias_history.c.number_before, alias_history.c.number_after)
            .where(alias_history.c.model_id == model_id)
            .order_by(alias_history.c.sequence)
        )
        return [
            AliasMove(row.alias, row.number_before, row.number_after)
            for row in await connection.execute(query)
        ]

    # Writes.

    async def insert(
        self,
        connection: AsyncConnection,
        kind: type[Resource],
        *,
        id: str,  # noqa: A002 - what it is
        parent_id: str | None,
        name: str,
        description: str,
        tags: Mapping[str, str],
        owner_id: str,
        time: datetime,
    ) -> bool:
        """Insert a catalog, schema or model; False if the name is taken."""
        values: dict[str, Any] = _new_row(id, description, tags, time) | {"name": name, "owner_id": owner_id}
        if parent_id is not None:
            values[PARENT_COLUMN[kind]] = parent_id
        if kind is Model:
            values["latest_version"] = 0
        table = levels(kind)[0]
        statement = upsert(table).values(values).on_conflict_do_nothing().returning(table.c.id)
        return (await connection.execute(statement)).one_or_none() is not None

    async def lock_models(
        self, connection: AsyncConnection, paths: Sequence[Path]
    ) -> list[tuple[int, Chain] | None]:
        """Return the last version numbers of models, with their chains; None for those that do not exist.

        Until the transaction ends no one else counts, deletes or renames them: they wait for their rows.
        """
        rows = await lookups.LOCKED.rows(connection, lookups.names(paths))
        return _placed(rows, len(paths), lambda row: (row.latest_version, read_model_chain(row)))

    async def insert_versions(
        self,
        connection: AsyncConnection,
        versions: Sequence[ModelVersion],
        told: additions.Told,
        claims: Sequence[Claim],
    ) -> bool:
        """Insert versions with all that belongs to them, and count them on their models, which this transaction has locked.

        Returns:
            False if one has the label of another version of its model; then the transaction is of no use any more.

        Raises:
            Repeated: one of the claims was made before; as then.
        """
        try:
            await additions.add(connection, versions, told, claims)
        except IntegrityError as error:
            if _LIVE_LABEL in str(error.orig):
                return False
            raise
        return True

    async def set_state(
        self,
        connection: AsyncConnection,
        version_id: str,
        state: VersionState,
        *,
        message: str,
        digest: str,
        time: datetime,
    ) -> None:
        """Put a version into a state."""
        await self._change(
            connection,
            ModelVersion,
            version_id,
            time,
            state=state,
            state_message=message,
            artifact_digest=digest,
        )

    async def set_tags(
        self, connection: AsyncConnection, resource: Resource, tags: Mapping[str, str], time: datetime
    ) -> None:
        """Replace all tags of a resource."""
        await self._change(connection, type(resource), resource.id, time, tags=dict(tags))

    async def set_metrics(
        self,
        connection: AsyncConnection,
        version: ModelVersion,
        *,
        write: Mapping[str, Json],
        remove: Sequence[str],
        time: datetime,
    ) -> None:
        """Write and remove metrics of a version."""
        gone = delete(metrics).where(metrics.c.version_id == version.id, metrics.c.name.in_(remove))
        if remove:
            await connection.execute(gone)
        if write:
            rows = [additions.metric_row(version, name, value) for name, value in write.items()]
            await connection.execute(_WRITE_METRIC, rows)
        await self._change(connection, ModelVersion, version.id, time)

    async def set_approvals(self, connection: AsyncConnection, changes: Sequence[ApprovalChange]) -> None:
        """Note where versions stand, deleted ones too; what is older than what is known, and unknown versions, are passed over."""
        statement = (
            update(model_versions)
            .where(
                model_versions.c.id == bindparam("of"), model_versions.c.approval_sequence < bindparam("at")
            )
            .values(approval_state=bindparam("told"), approval_sequence=bindparam("at"))
        )
        rows = [
            {"of": change.version_id, "told": change.state, "at": change.sequence}
            for change in sorted(changes, key=lambda change: change.version_id)
        ]
        if rows:
            await connection.execute(statement, rows)

    async def move_aliases(
        self,
        connection: AsyncConnection,
        model_id: str,
        moves: Sequence[AliasMove],
        call: Call,
        time: datetime,
    ) -> None:
        """Point aliases elsewhere, add to their history, and give the model and its versions a new revision."""
        for move in moves:
            await self._point(connection, model_id, move)
        history = [
            {
                "model_id": model_id,
                "alias": move.alias,
                "number_before": move.before,
                "number_after": move.after,
                "actor_id": call.principal.id,
                "actor_name": call.principal.name,
                "request_id": call.request_id,
                "time": time,
            }
            for move in moves
        ]
        await connection.execute(insert(alias_history), history)
        await self._change(connection, Model, model_id, time)
        numbers = {number for move in moves for number in (move.before, move.after)}
        await connection.execute(
            update(model_versions)
            .where(model_versions.c.model_id == model_id, model_versions.c.number.in_(sorted(numbers)))
            .values(revision=model_versions.c.revision + 1, update_time=time)
        )

    # Parts of the above.

    async def _point(self, connection: AsyncConnection, model_id: str, move: AliasMove) -> None:
        if not move.after:
            gone = delete(aliases).where(aliases.c.model_id == model_id, aliases.c.alias == move.alias)
            await connection.execute(gone)
            return
        statement = upsert(aliases).values(model_id=model_id, alias=move.alias, number=move.after)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["model_id", "alias"], set_={"number": statement.excluded.number}
            )
        )

    async def _change(
        self,
        connection: AsyncConnection,
        kind: type[Resource],
        id: str,  # noqa: A002 - what it is
        time: datetime,
        **values: Any,
    ) -> None:
        table = levels(kind)[0]
        statement = update(table).where(table.c.id == id)
        await connection.execute(statement.values(revision=table.c.revision + 1, update_time=time, **values))


def _new_row(id: str, description: str, tags: Mapping[str, str], time: datetime) -> dict[str, Any]:  # noqa: A002
    return {
        "id": id,
        "description": description,
        "tags": dict(tags),
        "revision": 1,
        "create_time": time,
        "update_time": time,
    }


def _placed(rows: Iterable[Row[Any]], count: int, read: Callable[[Row[Any]], T]) -> list[T | None]:
    """Return what was found, by its place among what was asked."""
    found: list[T | None] = [None] * count
    for row in rows:
        found[row.place - 1] = read(row)
    return found


# Built once, as `lookups` are.

_LIVE_LABEL = "model_versions_live_label"  # the index
_METRIC = upsert(metrics)
_WRITE_METRIC = _METRIC.on_conflict_do_update(
    index_elements=["version_id", "name"],
    set_={"value": _METRIC.excluded.value, "number": _METRIC.excluded.number},
)
