"""Rules of copies: a version of another model with the same content; no byte is copied."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.authority import Authority
from modelyard_catalog.commands import CopyVersion, CreateVersion
from modelyard_catalog.labels import require_free_label
from modelyard_catalog.models import Model, ModelVersion, VersionState
from modelyard_catalog.origins import record_copy
from modelyard_catalog.recording import create_once, record
from modelyard_catalog.store import CatalogStore
from modelyard_kit.access import Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState, NotFound
from modelyard_kit.ids import new_id


class Copies:
    """The use case of copying a version."""

    def __init__(self, db: Database, store: CatalogStore, clock: Clock, authority: Authority) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._authority = authority

    async def copy(self, call: Call, command: CopyVersion) -> ModelVersion:
        """Add a READY version to a model, with content, descriptions and provenance of the source but for its label and aliases.

        The artifact service is not asked: the source is READY, and files are found through the version.

        Raises:
            NotFound: source or model does not exist.
            InvalidState: the source is not READY.
            PermissionDenied: the caller lacks CREATE_VERSION on the model.
            AlreadyExists: another version of the model has the label.
            InvalidField: an alias of the model has the name of the label.
            RequestIdReused: the request id came before with other content.
        """
        await self._authority.require_on(call, Privilege.CREATE_VERSION, command.model)

        async def work(connection: AsyncConnection) -> ModelVersion:
            async def insert() -> str:
                return await self._insert(connection, call, command)

            made = await create_once(connection, call, "copy_model_version", command.once, insert)
            found = await self._store.get(connection, ModelVersion, made)
            if found is None:
                raise NotFound(ResourceType.MODEL_VERSION, made)
            return found

        return await self._db.in_tx(work)

    async def _insert(self, connection: AsyncConnection, call: Call, command: CopyVersion) -> str:
        source = await self._store.version(connection, command.source)
        if source is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(command.source))
        model = await self._store.find(connection, Model, command.model)
        if model is None:
            raise NotFound(ResourceType.MODEL, ".".join(command.model))
        # Again, and about these very models: others may have had the names when the caller's rights were looked at.
        self._authority.require(call, Privilege.READ_ARTIFACT, source.chain)
        self._authority.require(call, Privilege.CREATE_VERSION, model.chain)
        if source.state is not VersionState.READY:
            raise InvalidState(source.kind, source.name, state=source.state, wanted=VersionState.READY)
        await require_free_label(connection, self._store, model, command.label)
        now = self._clock()
        number = await self._store.next_number(connection, model.id, now)
        made = new_id()
        await self._store.insert_version(
            connection,
            _content(source, command),
            id=made,
            model_id=model.id,
            number=number,
            call=call,
            time=now,
            source=source,
        )
        link = Link(ResourceType.MODEL_VERSION, made, f"{model.name}/{number}")
        datasets = () if source.provenance is None else source.provenance.datasets
        await record_copy(connection, call, source.link, link, datasets, now)
        datasets = () if source.provenance is None else source.provenance.datasets
        await record_copy(connection, call, source.link, link, datasets, now)
        data = {
            "after": {
                "model_id": model.id,
                "number": number,
                "state": VersionState.READY,
                "artifact_digest": source.artifact_digest,
                "label": command.label,
                "copied_from": source.name,
                "copied_from_id": source.id,
            }
        }
        await record(connection, call, "catalog.model_version.created", link, time=now, data=data)
        return made


def _content(source: ModelVersion, command: CopyVersion) -> CreateVersion:
    """Return the version that is added, as if it were asked for."""
    return CreateVersion(
        model=command.model,
        artifact_digest=source.artifact_digest,
        description=source.description,
        runtime=source.runtime,
        signature=source.signature,
        tags=source.tags,
        metrics=source.metrics,
        provenance=source.provenance,
        metadata=source.metadata,
        once=command.once,
        label=command.label,
    )
