"""Rules of updates: descriptions, owners, names and places change, ids never."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import claims
from modelyard_catalog.authority import Authority
from modelyard_catalog.commands import Update, UpdateVersion
from modelyard_catalog.labels import require_free_label
from modelyard_catalog.lifecycle_store import LifecycleStore
from modelyard_catalog.models import (
    Catalog,
    Json,
    Model,
    ModelVersion,
    Path,
    Provenance,
    Resource,
    Schema,
    VersionState,
)
from modelyard_catalog.origins import record_datasets
from modelyard_catalog.recording import changes, model_turn, record
from modelyard_catalog.rows import metadata_to_json, signature_to_json
from modelyard_catalog.store import CatalogStore
from modelyard_kit.access import Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, EtagMismatch, InvalidField, InvalidState, NotFound

C = TypeVar("C", Catalog, Schema, Model)


class Updates:
    """Use cases that change a resource and keep what it is."""

    def __init__(
        self,
        db: Database,
        store: CatalogStore,
        lifecycle: LifecycleStore,
        clock: Clock,
        authority: Authority,
    ) -> None:
        self._db = db
        self._store = store
        self._lifecycle = lifecycle
        self._clock = clock
        self._authority = authority

    async def update(self, call: Call, kind: type[C], command: Update) -> C:
        """Change description, owner, name or (of a model) schema; nothing changes if all is so already.

        Raises:
            NotFound: it does not exist, or the schema to move to does not.
            EtagMismatch: it changed since the caller read it.
            AlreadyExists: the new name is taken.
            InvalidField: there is no such principal.
            PermissionDenied: a change of owner needs MANAGE, a move CREATE_MODEL on the other schema.
            InvalidState: the other schema is being deleted.
        """
        moved = _moved_to(command)
        if moved:
            await self._authority.require_on(call, Privilege.CREATE_MODEL, moved)

        async def work(connection: AsyncConnection) -> C:
            before = await self._store.find(connection, kind, command.path)
            if before is None:
                raise NotFound(kind.kind, ".".join(command.path))
            call.confirm(before.chain)
            require_etag(before, command.etag)
            values = self._new_values(call, before, command)
            if moved:
                values["schema_id"] = await self._schema_id(connection, call, moved)
            if not values:
                return before
            now = self._clock()
            if not await self._lifecycle.change(connection, before, now, **values):
                raise AlreadyExists(kind.kind, ".".join(command.new_path or command.path))
            after = await self._store.get(connection, kind, before.id)
            if after is None:
                raise NotFound(kind.kind, before.name)
            data = changes(_content(before), _content(after))
            left = [link.id for link in before.parents if moved and link.type is not ResourceType.SYSTEM]
            event = f"catalog.{kind.kind}.updated"
            await record(connection, call, event, after.link, time=now, data=data, also=left)
            return after

        # The row of a model is also that which its versions are counted on.
        return await self._db.in_tx(work, turns=[model_turn(command.path)] if kind is Model else "")

    async def update_version(self, call: Call, command: UpdateVersion) -> ModelVersion:
        """Change what is around the content of a version; nothing changes if all is so already.

        Raises:
            NotFound: it does not exist.
            EtagMismatch: it changed since the caller read it.
            AlreadyExists: another version has the label.
            InvalidField: an alias has the name of the label.
            InvalidState: the signature can change only while it is PENDING.
            LineageCycle: a data set came of the version.
        """

        async def work(connection: AsyncConnection) -> ModelVersion:
            before = await self._store.version(connection, command.version)
            if before is None:
                raise NotFound(ResourceType.MODEL_VERSION, str(command.version))
            call.confirm(before.parents)
            require_etag(before, command.etag)
            after = _changed(before, command)
            if after == before:
                return before
            if after.signature != before.signature and before.state is not VersionState.PENDING:
                raise InvalidState(before.kind, before.name, state=before.state, wanted=VersionState.PENDING)
            if after.label != before.label:
                await require_free_label(
                    connection, self._store, before.model, after.label, field="model_version.label"
                )
            now = self._clock()
            if not await self._lifecycle.change(connection, before, now, **_columns(after)):
                raise AlreadyExists(before.kind, f"{before.model.name}@{after.label}")
            if after.provenance is not None and after.provenance != before.provenance:
                datasets = after.provenance.datasets
                await record_datasets(connection, call, before.link, datasets, now, is_new=False)
            data = changes(_version_content(before), _version_content(after))
            event = "catalog.model_version.updated"
            await record(connection, call, event, before.link, time=now, data=data)
            return await self._store.get(connection, ModelVersion, before.id) or after

        return await self._db.in_tx(work)

    def _new_values(self, call: Call, before: Resource, command: Update) -> dict[str, Any]:
        """Return the columns that change, but for the place of a model."""
        values: dict[str, Any] = {}
        if command.description is not None and command.description != before.description:
            values["description"] = command.description
        if command.owner_id is not None and command.owner_id != before.owner_id:
            self._authority.require(call, Privilege.MANAGE, before.chain)
            if not self._authority.knows(command.owner_id):
                raise InvalidField(
                    f"{before.kind}.owner_id", f"there is no principal with the id {command.owner_id!r}"
                )
            values["owner_id"] = command.owner_id
        if command.new_path is not None and command.new_path[-1] != command.path[-1]:
            values["name"] = command.new_path[-1]
        return values

    async def _schema_id(self, connection: AsyncConnection, call: Call, path: Path) -> str:
        schema = await self._store.find(connection, Schema, path)
        if schema is None:
            raise NotFound(ResourceType.SCHEMA, ".".join(path))
        # Again, and about this very schema: another one may have had the name when the caller's rights were looked at.
        self._authority.require(call, Privilege.CREATE_MODEL, schema.chain)
        for link in await claims.stay(connection, schema.chain):
            raise InvalidState(link.type, link.name, state="being deleted", wanted="not deleted")
        return schema.id


def require_etag(resource: Resource, etag: str) -> None:
    """Return if the resource has the etag, or none is given.

    Raises:
        EtagMismatch: it has another one.
    """
    if etag and etag != resource.etag:
        raise EtagMismatch(resource.kind, resource.name, expected=etag, actual=resource.etag)


def _moved_to(command: Update) -> Path:
    """Return the schema that a model is to move to; empty if it stays."""
    if command.new_path is None or command.new_path[:-1] == command.path[:-1]:
        return ()
    return command.new_path[:-1]


def _content(resource: Resource) -> dict[str, Json]:
    return {"name": resource.name, "description": resource.description, "owner_id": resource.owner_id}


def _changed(version: ModelVersion, command: UpdateVersion) -> ModelVersion:
    given = dict(command.changes)
    if "datasets" in given:
        provenance = version.provenance or Provenance()
        datasets = given.pop("datasets")
        if datasets != provenance.datasets:
            given["provenance"] = replace(provenance, datasets=datasets)
    metadata, tests = given.get("metadata"), version.artifact_tests
    if metadata and tests and metadata.test_results == tests.results:
        # Sent back as it was shown: they are the artifact's, and what was written of the version's own stays.
        own = version.metadata.test_results if version.metadata else {}
        given["metadata"] = replace(metadata, test_results=own)
    return replace(version, **given)


def _columns(version: ModelVersion) -> dict[str, Any]:
    return {
        "description": version.description,
        "label": version.label,
        "metadata": metadata_to_json(version.metadata),
        "signature": signature_to_json(version.signature),
        "provenance": None if version.provenance is None else asdict(version.provenance),
    }


def _version_content(version: ModelVersion) -> dict[str, Json]:
    columns = _columns(version)
    provenance = columns.pop("provenance") or {}
    return columns | {"datasets": list(provenance.get("datasets", ()))}
