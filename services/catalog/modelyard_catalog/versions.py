"""Rules of model versions: numbers, states, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import events, search
from modelyard_catalog.additions import Repeated
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
from modelyard_catalog.labels import add_versions
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
from modelyard_catalog.recording import (
    COUNTING,
    changes,
    claim_of,
    compact,
    event_of,
    model_turn,
    record,
)
from modelyard_catalog.store import CatalogStore
from modelyard_kit import idempotency, limits, outbox
from modelyard_kit.access import Chain, Link, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.batching import Batches
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, DomainError, InvalidState, NotFound
from modelyard_kit.ids import new_id

_CREATE = "create_model_version"


class Artifacts(Protocol):
    """What the rules ask of the artifact service."""

    async def acquire(self, digest: str, model: Link, version_id: str, *, source_model_id: str = "") -> None:
        """Keep an artifact that was committed for the model, or for the source of a copy, for a version about to have it.

        Raises:
            InvalidField: it was not.
            PeerUnavailable: nobody can tell at the moment.
        """
        ...


@dataclass(frozen=True)
class _Create:
    """A version to be made under an id: by whom, as what, and of which model if its artifact was acquired for that one."""

    call: Call
    command: CreateVersion
    made: str
    of: str = ""


class Versions:
    """Use cases of model versions."""

    def __init__(self, db: Database, store: CatalogStore, clock: Clock, artifacts: Artifacts) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._artifacts = artifacts
        self._creates = Batches(self._create_each)

    async def create(self, call: Call, command: CreateVersion) -> ModelVersion:
        """Add a version with the next number: READY if it names a committed artifact, else PENDING.

        Raises:
            NotFound: the model does not exist.
            InvalidField: the artifact was not committed for the model, or an alias has the name of the label.
            AlreadyExists: another version has the label.
            PeerUnavailable: the artifact service does not answer.
            RequestIdReused: the request id came before with other content.
            Contention: the model was replaced by another of its name meanwhile.
        """
        made = new_id()
        if command.artifact_digest:
            # Before the transaction: what it runs may run twice, and must not wait for another service. If it fails, the artifact
            # service finds out by itself that no version came.
            link = await self._link(call, command.model)
            await self._artifacts.acquire(command.artifact_digest, link, made)
            return await self._creates.do(_Create(call, command, made, of=link.id))
        return await self._creates.do(_Create(call, command, made))

    async def _create_each(self, creates: Sequence[_Create]) -> Sequence[ModelVersion]:
        """Add versions in one transaction; of several, either all or none."""

        async def work(connection: AsyncConnection) -> Sequence[ModelVersion]:
            return await self._insert(connection, creates)

        turns = {model_turn(each.command.model) for each in creates}
        try:
            return await self._db.in_tx(work, isolation=COUNTING, turns=turns)
        except (Repeated, DomainError):
            # What comes again may also fail otherwise, as by the label that it got the first time.
            before = await self._made_before(creates[0]) if len(creates) == 1 else None
            if before is None:
                raise
            return [before]

    async def _made_before(self, asked: _Create) -> ModelVersion | None:
        """Return what the same request made when it came before, if it did."""
        claim = _claim(asked)

        async def work(connection: AsyncConnection) -> ModelVersion | None:
            made = await idempotency.replay(
                connection,
                principal_id=claim.principal_id,
                method=claim.method,
                request_id=claim.request_id,
                fingerprint=claim.fingerprint,
            )
            if made is None:
                return None
            found = await self._store.get(connection, ModelVersion, made)
            if found is None:
                raise NotFound(ResourceType.MODEL_VERSION, made)
            return found

        found = await self._db.read(work)
        if found is not None:
            asked.call.confirm(found.parents)
        return found

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
        self, connection: AsyncConnection, creates: Sequence[_Create]
    ) -> Sequence[ModelVersion]:
        now = self._clock()
        locked = await self._store.lock_models(connection, [each.command.model for each in creates])
        versions: list[ModelVersion] = []
        latest: dict[str, int] = {}
        for each, model in zip(creates, locked, strict=True):
            if model is None:
                raise NotFound(ResourceType.MODEL, ".".join(each.command.model))
            last, parents = model
            if each.of not in ("", parents[0].id):
                raise Contention(
                    1
                )  # the name has come to mean another model, for which nobody committed the artifact
            each.call.confirm(parents)
            number = latest[parents[0].id] = latest.get(parents[0].id, last) + 1
            versions.append(_new_version(each, number=number, parents=parents, time=now))
        told = list(map(_created, creates, versions))
        await add_versions(connection, self._store, versions, told, list(map(_claim, creates)))
        for each, version in zip(creates, versions, strict=True):
            if each.command.provenance is not None:
                datasets = each.command.provenance.datasets
                await record_datasets(connection, each.call, version.link, datasets, now, is_new=True)
        return versions

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

    async def _link(self, call: Call, path: Path) -> Link:
        """Return the model that a call may change: as the permission layer found it, if it looked."""
        if call.permit is not None:
            return call.permit.chain[0]
        found = await self._db.query(lambda connection: self._store.find(connection, Model, path))
        if found is None:
            raise NotFound(ResourceType.MODEL, ".".join(path))
        return found.link

    async def _require(self, connection: AsyncConnection, ref: VersionRef) -> ModelVersion:
        found = await self._store.version(connection, ref)
        if found is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(ref))
        return found


def _new_version(asked: _Create, *, number: int, parents: Chain, time: datetime) -> ModelVersion:
    command = asked.command
    return ModelVersion(
        id=asked.made,
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
        author_id=asked.call.principal.id,
        author_name=asked.call.principal.name,
        label=command.label,
    )


def _claim(asked: _Create) -> idempotency.Claim:
    return claim_of(asked.call, _CREATE, asked.command.once, asked.made)


def _created(asked: _Create, version: ModelVersion) -> tuple[outbox.Event, Sequence[str]]:
    """Return the event of a new version, and its scope."""
    after = {
        "model_id": version.model.id,
        "number": version.number,
        "state": version.state,
        "artifact_digest": version.artifact_digest,
        "description": version.description,
        "runtime": version.runtime,
        "label": version.label,
        "tags": dict(version.tags),
        "metrics": {name: compact(value) for name, value in version.metrics.items()},
    }
    event = event_of(
        asked.call,
        "catalog.model_version.created",
        version.link,
        time=version.create_time,
        data={"after": after},
    )
    return event, events.scope_of_chain(version.chain)


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
