"""Rules of model versions: numbers, states, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import search
from modelyard_catalog.commands import (
    Browse,
    ById,
    Container,
    CreateVersion,
    Fail,
    Finalize,
    SetMetrics,
    VersionRef,
)
from modelyard_catalog.labels import add_version
from modelyard_catalog.models import (
    RESULTS,
    TRANSITIONS,
    Json,
    Model,
    ModelVersion,
    Path,
    Transition,
    VersionState,
)
from modelyard_catalog.origins import record_datasets
from modelyard_catalog.recording import COUNTING, changes, compact, create_once, model_turn, record
from modelyard_catalog.store import CatalogStore
from modelyard_kit import limits
from modelyard_kit.access import Chain, Link, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState, NotFound
from modelyard_kit.ids import new_id


class Artifacts(Protocol):
    """What the rules ask of the artifact service."""

    async def acquire(self, digest: str, model: Link, version_id: str, *, source_model_id: str = "") -> None:
        """Keep an artifact that was committed for the model, or for the source of a copy, for a version about to have it.

        Raises:
            InvalidField: it was not.
            PeerUnavailable: nobody can tell at the moment.
        """
        ...


class Versions:
    """Use cases of model versions."""

    def __init__(self, db: Database, store: CatalogStore, clock: Clock, artifacts: Artifacts) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._artifacts = artifacts

    async def create(self, call: Call, command: CreateVersion) -> ModelVersion:
        """Add a version with the next number: READY if it names a committed artifact, else PENDING.

        Raises:
            NotFound: the model does not exist.
            InvalidField: the artifact was not committed for the model, or an alias has the name of the label.
            AlreadyExists: another version has the label.
            PeerUnavailable: the artifact service does not answer.
            RequestIdReused: the request id came before with other content.
        """
        made = new_id()
        if command.artifact_digest:
            # Before the transaction: what it runs may run twice, and must not wait for another service. If it fails, the artifact
            # service finds out by itself that no version came.
            model = await self._db.query(lambda connection: self._model(connection, command.model))
            call.confirm(model.chain)
            await self._artifacts.acquire(command.artifact_digest, model.link, made)

        async def work(connection: AsyncConnection) -> ModelVersion:
            async def create(made: str) -> ModelVersion:
                return await self._insert(connection, call, command, made)

            async def made_before(made: str) -> ModelVersion:
                found = await self._store.get(connection, ModelVersion, made)
                if found is None:
                    raise NotFound(ResourceType.MODEL_VERSION, made)
                call.confirm(found.parents)
                return found

            return await create_once(
                connection, call, "create_model_version", command.once, create, made_before, made=made
            )

        return await self._db.in_tx(work, isolation=COUNTING, turn=model_turn(command.model))

    async def finalize(self, call: Call, command: Finalize) -> ModelVersion:
        """Give a PENDING version its artifact; the same again changes nothing.

        Raises:
            NotFound: the version does not exist.
            InvalidState: it has another artifact, or was given up.
            InvalidField: the artifact was not committed for the model.
            PeerUnavailable: the artifact service does not answer.
        """
        seen = await self.get(command.version)
        call.confirm(seen.parents)
        if _is_repetition(seen, Transition.FINALIZE, digest=command.artifact_digest):
            return seen
        await self._artifacts.acquire(command.artifact_digest, seen.model, seen.id)
        return await self._change_state(
            call,
            VersionRef(command.version.model, seen.number),
            Transition.FINALIZE,
            digest=command.artifact_digest,
        )

    async def fail(self, call: Call, command: Fail) -> ModelVersion:
        """Give up a PENDING version; the same again changes nothing.

        Raises:
            NotFound: the version does not exist.
            InvalidState: it is READY.
        """
        return await self._change_state(call, command.version, Transition.FAIL, message=command.message)

    async def get(self, ref: VersionRef) -> ModelVersion:
        """Return the version that a reference names at this moment.

        Raises:
            NotFound: there is none.
        """
        return await self._db.query(lambda connection: self._require(connection, ref))

    async def page(
        self, model: Container, asked: Browse, *, known: Link | None = None
    ) -> tuple[list[ModelVersion], str]:
        """Return a page of versions, newest first if not asked otherwise, and the token of the next one.

        Args:
            model: given by its id it may be deleted, or be in something deleted.
            asked: which rows, in which order.
            known: what the permission layer found to be the model, so that it is not looked up again.

        Raises:
            NotFound: the model does not exist.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        link = known or await self._located(model)
        # In a transaction, without which the setting of the planner would not hold: see search.py.
        rows, token = await self._db.read(
            lambda connection: search.page(
                connection,
                ModelVersion,
                asked,
                parent_id=link.id,
                scope=None,
                show_hidden=isinstance(model, ById),
            )
        )
        if not rows and (await self._located(model)).id != link.id:
            raise NotFound(link.type, link.name)  # not empty, but gone meanwhile
        return rows, token

    async def uses_of(self, digests: Sequence[str]) -> list[str]:
        """Return which of these artifacts versions have, deleted ones that are not purged included."""
        return await self._db.read(lambda connection: self._store.used_digests(connection, digests))

    async def set_metrics(self, call: Call, command: SetMetrics) -> dict[str, Json]:
        """Write and remove metrics of a version and return all it has then.

        Raises:
            NotFound: the version does not exist.
            LimitExceeded: it would have too many.
        """

        async def work(connection: AsyncConnection) -> dict[str, Json]:
            version = await self._require(connection, command.version)
            call.confirm(version.parents)
            before = dict(version.metrics)
            after = {**before, **command.write}
            for name in command.remove:
                after.pop(name, None)
            limits.check("metrics_per_version", len(after))
            difference = changes(before, after)
            if not difference["before"] and not difference["after"]:
                return after
            now = self._clock()
            await self._store.set_metrics(
                connection, version, write=command.write, remove=command.remove, time=now
            )
            event = "catalog.model_version.measured"
            await record(connection, call, event, version.link, time=now, data=difference)
            return after

        return await self._db.in_tx(work)

    async def _insert(
        self, connection: AsyncConnection, call: Call, command: CreateVersion, made: str
    ) -> ModelVersion:
        now = self._clock()
        counted = await self._store.count_version(connection, command.model, now)
        if counted is None:
            raise NotFound(ResourceType.MODEL, ".".join(command.model))
        number, parents = counted
        call.confirm(parents)
        version = _new_version(command, call, id=made, number=number, parents=parents, time=now)
        await add_version(connection, self._store, version)
        datasets = () if command.provenance is None else command.provenance.datasets
        await record_datasets(connection, call, version.link, datasets, now, is_new=True)
        data = {
            "after": {
                "model_id": version.model.id,
                "number": number,
                "state": version.state,
                "artifact_digest": command.artifact_digest,
                "description": command.description,
                "runtime": command.runtime,
                "label": command.label,
                "tags": dict(command.tags),
                "metrics": {name: compact(value) for name, value in command.metrics.items()},
            }
        }
        event = "catalog.model_version.created"
        await record(connection, call, event, version.link, time=now, data=data, chain=version.chain)
        return version

    async def _change_state(
        self, call: Call, ref: VersionRef, transition: Transition, *, message: str = "", digest: str = ""
    ) -> ModelVersion:
        async def work(connection: AsyncConnection) -> ModelVersion:
            version = await self._require(connection, ref)
            call.confirm(version.parents)
            if _is_repetition(version, transition, digest=digest):
                return version
            state = TRANSITIONS[version.state][transition]
            now = self._clock()
            await self._store.set_state(
                connection, version.id, state, message=message, digest=digest, time=now
            )
            data = {
                "before": {"state": version.state},
                "after": {"state": state, "artifact_digest": digest, "state_message": message},
            }
            event = "finalized" if transition is Transition.FINALIZE else "failed"
            await record(
                connection, call, f"catalog.model_version.{event}", version.link, time=now, data=data
            )
            return await self._require(connection, ref)

        return await self._db.in_tx(work)

    async def _located(self, model: Container) -> Link:
        """Return the model whose versions are listed."""
        found = await self._db.query(lambda connection: self._store.contained(connection, Model, model))
        if found is None:
            raise NotFound(Model.kind, model.id if isinstance(model, ById) else ".".join(model))
        return found.link

    async def _model(self, connection: AsyncConnection, path: Path) -> Model:
        found = await self._store.find(connection, Model, path)
        if found is None:
            raise NotFound(ResourceType.MODEL, ".".join(path))
        return found

    async def _require(self, connection: AsyncConnection, ref: VersionRef) -> ModelVersion:
        found = await self._store.version(connection, ref)
        if found is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(ref))
        return found


def _new_version(
    command: CreateVersion,
    call: Call,
    *,
    id: str,  # noqa: A002 - what it is
    number: int,
    parents: Chain,
    time: datetime,
) -> ModelVersion:
    return ModelVersion(
        id=id,
        name=f"{parents[0].name}/{number}",
        description=command.description,
        owner_id="",
        tags=command.tags,
        revision=1,
        create_time=time,
        update_time=time,
        parents=parents,
        number=number,
        state=VersionState.READY if command.artifact_digest else VersionState.PENDING,
        state_message="",
        artifact_digest=command.artifact_digest,
        runtime=command.runtime,
        signature=command.signature,
        metrics=command.metrics,
        provenance=command.provenance,
        metadata=command.metadata,
        aliases=(),
        author_id=call.principal.id,
        author_name=call.principal.name,
        label=command.label,
    )


def _is_repetition(version: ModelVersion, transition: Transition, *, digest: str) -> bool:
    """Return whether the transition was made before; False if it can be made now.

    Raises:
        InvalidState: neither.
    """
    if transition in TRANSITIONS[version.state]:
        return False
    if version.state is RESULTS[transition] and version.artifact_digest == digest:
        return True
    raise InvalidState(version.kind, version.name, state=version.state, wanted=VersionState.PENDING)
