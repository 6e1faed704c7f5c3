"""Rules of copies: a version of another model with the same content; no byte is copied."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.authority import Authority
from modelyard_catalog.commands import CopyVersion, VersionRef
from modelyard_catalog.events import scope_of_chain
from modelyard_catalog.labels import add_versions
from modelyard_catalog.models import ApprovalState, Model, ModelVersion, VersionState
from modelyard_catalog.origins import record_copy
from modelyard_catalog.recording import COUNTING, create_once, event_of, model_turn
from modelyard_catalog.store import CatalogStore
from modelyard_catalog.versions import Artifacts
from modelyard_kit.access import Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState, NotFound
from modelyard_kit.ids import new_id


class Copies:
    """The use case of copying a version."""

    def __init__(
        self, db: Database, store: CatalogStore, clock: Clock, authority: Authority, artifacts: Artifacts
    ) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._authority = authority
        self._artifacts = artifacts

    async def copy(self, call: Call, command: CopyVersion) -> ModelVersion:
        """Add a READY version to a model, with content, descriptions and provenance of the source but for its label and aliases.

        Raises:
            NotFound: source or model does not exist.
            InvalidState: the source is not READY.
            PermissionDenied: the caller lacks CREATE_VERSION on the model.
            AlreadyExists: another version of the model has the label.
            InvalidField: an alias of the model has the name of the label.
            PeerUnavailable: the artifact service does not answer.
            RequestIdReused: the request id came before with other content.
        """
        await self._authority.require_on(call, Privilege.CREATE_VERSION, command.model)
        made = new_id()
        command = await self._keep_artifact(command, made)

        async def work(connection: AsyncConnection) -> ModelVersion:
            async def create(made: str) -> ModelVersion:
                return await self._insert(connection, call, command, made)

            async def made_before(made: str) -> ModelVersion:
                found = await self._store.get(connection, ModelVersion, made)
                if found is None:
                    raise NotFound(ResourceType.MODEL_VERSION, made)
                self._authority.require(call, Privilege.CREATE_VERSION, found.parents)
                return found

            return await create_once(
                connection, call, "copy_model_version", command.once, create, made_before, made=made
            )

        return await self._db.in_tx(work, isolation=COUNTING, turns=[model_turn(command.model)])

    async def _keep_artifact(self, command: CopyVersion, made: str) -> CopyVersion:
        """Keep the artifact of the source for the copy, and return the command for exactly that source."""

        async def look(connection: AsyncConnection) -> tuple[ModelVersion | None, Model | None]:
            source = await self._store.version(connection, command.source)
            return source, await self._store.find(connection, Model, command.model)

        source, model = await self._db.read(look)
        if source is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(command.source))
        if model is None:
            raise NotFound(ResourceType.MODEL, ".".join(command.model))
        if source.state is VersionState.READY:
            digest, origin = source.artifact_digest, source.model.id
            await self._artifacts.acquire(digest, model.link, made, source_model_id=origin)
        # By its number: an alias may move to a version with other content meanwhile.
        return replace(command, source=VersionRef(command.source.model, source.number))

    async def _insert(
        self, connection: AsyncConnection, call: Call, command: CopyVersion, made: str
    ) -> ModelVersion:
        now = self._clock()
        [locked] = await self._store.lock_models(connection, [command.model])
        if locked is None:
            raise NotFound(ResourceType.MODEL, ".".join(command.model))
        latest, parents = locked
        number = latest + 1
        source = await self._store.version(connection, command.source)
        if source is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(command.source))
        # Again, and about these very models: others may have had the names when the caller's rights were looked at.
        self._authority.require(call, Privilege.READ_ARTIFACT, source.chain)
        self._authority.require(call, Privilege.CREATE_VERSION, parents)
        if source.state is not VersionState.READY:
            raise InvalidState(source.kind, source.name, state=source.state, wanted=VersionState.READY)
        version = replace(
            source,
            id=made,
            name=f"{parents[0].name}/{number}",
            number=number,
            parents=parents,
            revision=1,
            create_time=now,
            update_time=now,
            state_message="",
            aliases=(),
            author_id=call.principal.id,
            author_name=call.principal.name,
            label=command.label,
            copied_from=source.name,
            copied_from_id=source.id,
            approval_state=ApprovalState.NONE,
        )
        data = {
            "after": {
                "model_id": version.model.id,
                "number": number,
                "state": version.state,
                "artifact_digest": version.artifact_digest,
                "label": version.label,
                "copied_from": source.name,
                "copied_from_id": source.id,
            }
        }
        event = event_of(call, "catalog.model_version.created", version.link, time=now, data=data)
        told = [(event, scope_of_chain(version.chain))]
        await add_versions(connection, self._store, [version], told)
        datasets = () if source.provenance is None else source.provenance.datasets
        await record_copy(connection, call, source.link, version.link, datasets, now)
        return version
