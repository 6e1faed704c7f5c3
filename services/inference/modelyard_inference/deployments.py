"""The use cases of deployments: what callers may ask for. Making it true is the reconciler's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import errors
from modelyard_inference.commands import CreateDeployment, ListDeployments, ListReplicas, UpdateDeployment
from modelyard_inference.models import (
    Deployment,
    DeploymentState,
    Group,
    Replica,
    Target,
    TargetSpec,
    Version,
)
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore, Visible
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Chain, Grants, Link, Missing, Privilege
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, NotFound
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id

_CREATE = "CreateDeployment"


class Deployments:
    """Creates, reads, changes and deletes deployments.

    Args:
        db: the database.
        store: its tables.
        upstream: catalog and governance.
        grants: what principals may do.
        clock: the time.
        wake: called after every committed change, so that the reconciler looks at once.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        upstream: Upstream,
        grants: Grants,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._grants = grants
        self._clock = clock
        self._wake = wake

    async def create(self, call: Call, command: CreateDeployment) -> Deployment:
        """Make a deployment, owned by the caller.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: schema, model, version or alias does not exist.
            InvalidState: a version is not READY.
            PermissionDenied: the caller lacks DEPLOY on a model.
            PolicyUnmet: a policy forbids to deploy a version.
            RequestIdReused: the request id was used with other content.
            PeerUnavailable: catalog or governance does not answer.
        """
        before = await self._db.read(lambda connection: self._replay(connection, call, command))
        if before:
            return before
        schema = await self._upstream.schema_chain(command.schema)
        targets = [
            Target(spec, wanted=version) for spec, version in await self._approve(call, command.targets)
        ]
        made = self._new(call, command, schema, targets)
        await failpoint("inference.deployment.resolved")

        async def work(connection: AsyncConnection) -> Deployment:
            again = await self._replay(connection, call, command)
            if again:
                return again
            if await self._store.deployment(connection, command.name):
                raise errors.name_taken(command.name)
            await self._store.insert_deployment(connection, made)
            await idempotency.remember(
                connection,
                principal_id=call.principal.id,
                method=_CREATE,
                request_id=command.request_id,
                fingerprint=command.fingerprint,
                resource_id=made.id,
            )
            await outbox.append(connection, _event("created", call, made, {"after": _content(made)}))
            return made

        created = await self._db.in_tx(work)
        await failpoint("inference.deployment.created")
        self._wake()
        return created

    async def get(self, name: str) -> Deployment:
        """Return a deployment.

        Raises:
            NotFound: there is none of that name.
        """
        found = await self._db.read(lambda connection: self._store.deployment(connection, name))
        if found is None:
            raise errors.no_deployment(name)
        return found

    async def page(self, call: Call, command: ListDeployments) -> tuple[list[Deployment], str]:
        """Return a page of the deployments that the caller may see, and the token of the next one.

        Raises:
            NotFound: the schema does not exist.
            PermissionDenied: the caller lacks USE_SCHEMA on the schema.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        schema_id = await self._usable_schema(call.principal, command.schema) if command.schema else ""
        caller = call.principal.id
        visible = Visible(
            self._grants.scope(caller, Privilege.READ_METADATA),
            self._grants.scope(caller, Privilege.USE_SCHEMA),
            self._grants.scope(caller, Privilege.USE_CATALOG),
        )
        return await self._db.read(
            lambda connection: self._store.page(
                connection,
                command.asked,
                schema_id=schema_id,
                visible=visible,
                principals=self._grants.id_of,
            )
        )

    async def update(self, call: Call, command: UpdateDeployment) -> Deployment:
        """Change a deployment.

        Raises:
            NotFound: there is none of that name, or a target does not exist.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted, or a version is not READY.
            PermissionDenied: the caller lacks DEPLOY on the model of a new target.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        before_targets = _changeable(await self.get(command.name), command.etag).targets
        kept = await self._still_meant(before_targets, command.targets or ())
        new = [spec for spec in command.targets or () if spec.reference not in kept]
        approved = {
            spec.reference: Target(spec, wanted=found) for spec, found in await self._approve(call, new)
        }

        async def work(connection: AsyncConnection) -> Deployment:
            found = await self._store.deployment(connection, command.name)
            if found is None:
                raise errors.no_deployment(command.name)
            before = _changeable(found, command.etag)
            after = self._changed(before, command, approved)
            await self._store.update_deployment(connection, after)
            if command.targets is not None:
                await self._store.replace_targets(connection, after.id, after.targets)
            if after.state is not before.state:
                await self._store.try_again(connection, after.id)
            if (after.max_request_bytes, after.timeout_ms) != (before.max_request_bytes, before.timeout_ms):
                await self._store.limits_changed(connection, after.id)
            data = {"before": _content(before), "after": _content(after)}
            await outbox.append(connection, _event("updated", call, after, data))
            return after

        updated = await self._db.in_tx(work)
        await failpoint("inference.deployment.updated")
        self._wake()
        return updated

    async def activate(self, call: Call, name: str, etag: str) -> Deployment:
        """Let a deployment answer again; harmless when it does.

        Raises:
            NotFound: there is none of that name, or a version of it is gone.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted.
            PermissionDenied: the caller lacks DEPLOY on the model of a target.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        for target in _changeable(await self.get(name), etag).targets:
            chain = await self._upstream.version_chain(await self._upstream.version_name(target.wanted.id))
            self._grants.require(call.principal, Privilege.DEPLOY, chain[1:])
            await self._upstream.gate(target.wanted, chain)
        activated = await self._set_active(call, name, etag, active=True)
        await failpoint("inference.deployment.activated")
        self._wake()
        return activated

    async def deactivate(self, call: Call, name: str, etag: str) -> Deployment:
        """Drain and end everything that a deployment runs and keep the rest; harmless when nothing runs.

        Raises:
            NotFound: there is none of that name.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted.
        """
        deactivated = await self._set_active(call, name, etag, active=False)
        await failpoint("inference.deployment.deactivated")
        self._wake()
        return deactivated

    async def delete(self, call: Call, name: str, etag: str) -> Deployment:
        """Begin to remove a deployment; harmless when that has begun.

        Raises:
            NotFound: there is none of that name.
            EtagMismatch: it has changed since the caller read it.
        """

        async def work(connection: AsyncConnection) -> Deployment:
            found = await self._store.deployment(connection, name)
            if found is None:
                raise errors.no_deployment(name)
            if found.state is DeploymentState.DELETING:
                return found
            if etag and etag != found.etag:
                raise errors.changed_meanwhile(found, etag)
            after = replace(
                found,
                state=DeploymentState.DELETING,
                state_message="",
                revision=found.revision + 1,
                update_time=self._clock(),
            )
            await self._store.update_deployment(connection, after)
            await outbox.append(connection, _event("deleted", call, after, {"before": _content(found)}))
            return after

        deleted = await self._db.in_tx(work)
        await failpoint("inference.deployment.deleted")
        self._wake()
        return deleted

    async def replicas(self, command: ListReplicas) -> tuple[list[tuple[Deployment, Replica, Group]], str]:
        """Return a page of the replicas of a deployment, each with it and its group, and the token of the next one.

        Raises:
            NotFound: there is no deployment of that name.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """

        async def work(connection: AsyncConnection) -> tuple[list[tuple[Deployment, Replica, Group]], str]:
            found = await self._store.deployment(connection, command.deployment)
            if found is None:
                raise errors.no_deployment(command.deployment)
            groups = {group.id: group for group in await self._store.groups(connection, found.id)}
            replicas, token = await self._store.page_of_replicas(connection, command.asked, found.id)
            return [(found, replica, groups[replica.group_id]) for replica in replicas], token

        return await self._db.read(work)

    async def using(self, version_ids: Sequence[str]) -> list[Link]:
        """Return the deployments that run or will run any of some versions, by name.

        Those that are being deleted count for as long as a replica of the version is there.
        """
        found = await self._db.read(lambda connection: self._store.using(connection, version_ids))
        return [deployment.chain[0] for deployment in found]

    async def chain(self, *, name: str = "", deployment_id: str = "") -> Chain:
        """Return the chain of a deployment by name or id.

        Raises:
            NotFound: there is none.
        """
        if name:
            return (await self.get(name)).chain
        found = await self._db.read(
            lambda connection: self._store.deployment_by_id(connection, deployment_id)
        )
        if found is None:
            raise errors.no_deployment(deployment_id)
        return found.chain

    async def access_chain(self, name: str) -> Chain:
        """Return the chain of a deployment to decide a privilege on.

        Raises:
            Missing: there is none; holds the chain of the nearest container that exists.
        """
        try:
            return await self.chain(name=name)
        except NotFound as error:
            raise Missing(error, await self._upstream.nearest_chain(name.rpartition(".")[0])) from error

    async def schema_access_chain(self, schema: str) -> Chain:
        """Return the chain of a schema to decide a privilege on.

        Raises:
            Missing: there is none; holds the chain of the nearest container that exists.
        """
        try:
            return await self._upstream.schema_chain(schema)
        except NotFound as error:
            raise Missing(error, await self._upstream.nearest_chain(schema)) from error

    async def _set_active(self, call: Call, name: str, etag: str, *, active: bool) -> Deployment:
        async def work(connection: AsyncConnection) -> Deployment:
            found = await self._store.deployment(connection, name)
            if found is None:
                raise errors.no_deployment(name)
            before = _changeable(found, etag)
            if before.active is active:
                return before
            after = replace(
                before,
                active=active,
                state=DeploymentState.CREATING if active and not before.answers else DeploymentState.UPDATING,
                state_message="",
                revision=before.revision + 1,
                update_time=self._clock(),
            )
            await self._store.update_deployment(connection, after)
            await self._store.try_again(connection, after.id)
            verb = "activated" if active else "deactivated"
            await outbox.append(connection, _event(verb, call, after, {"after": _content(after)}))
            return after

        return await self._db.in_tx(work)

    async def _usable_schema(self, principal: Principal, schema: str) -> str:
        try:
            chain = await self.schema_access_chain(schema)
        except Missing as missing:
            self._grants.require(principal, Privilege.USE_SCHEMA, missing.nearest)
            raise missing.error from None
        self._grants.require(principal, Privilege.USE_SCHEMA, chain)
        return chain[0].id

    async def _still_meant(self, targets: Sequence[Target], specs: Sequence[TargetSpec]) -> set[str]:
        """Return those references of targets that are asked for again and name the same model as when they were given."""
        asked = {spec.reference for spec in specs}
        kept = set()
        for target in targets:
            if target.spec.reference in asked:
                chain = await self._upstream.nearest_chain(target.spec.model)
                if chain[0].id == target.wanted.model_id:
                    kept.add(target.spec.reference)
        return kept

    async def _approve(self, call: Call, specs: Sequence[TargetSpec]) -> list[tuple[TargetSpec, Version]]:
        """Resolve targets and check that the caller and the policies let them be deployed."""
        approved = []
        for spec in specs:
            # The privilege first: who lacks it must not learn which versions and aliases exist.
            self._grants.require(
                call.principal, Privilege.DEPLOY, await self._upstream.nearest_chain(spec.model)
            )
            version = await self._upstream.version(spec.reference)
            await self._upstream.gate(version, await self._upstream.version_chain(version.name))
            approved.append((spec, version))
        return approved

    async def _replay(
        self, connection: AsyncConnection, call: Call, command: CreateDeployment
    ) -> Deployment | None:
        made_before = await idempotency.replay(
            connection,
            principal_id=call.principal.id,
            method=_CREATE,
            request_id=command.request_id,
            fingerprint=command.fingerprint,
        )
        if made_before is None:
            return None
        found = await self._store.deployment_by_id(connection, made_before)
        if found is None:
            raise errors.no_deployment(command.name)
        return found

    def _new(
        self, call: Call, command: CreateDeployment, schema: Chain, targets: Sequence[Target]
    ) -> Deployment:
        now = self._clock()
        return Deployment(
            id=new_id(),
            name=command.name,
            schema_id=schema[0].id,
            schema_owner_id=schema[0].owner_id,
            catalog_id=schema[1].id,
            catalog_owner_id=schema[1].owner_id,
            description=command.description,
            replicas=command.replicas,
            max_request_bytes=command.max_request_bytes,
            timeout_ms=command.timeout_ms,
            state=DeploymentState.CREATING,
            state_message="",
            owner_id=call.principal.id,
            revision=1,
            create_time=now,
            update_time=now,
            require_signature=command.require_signature,
            targets=tuple(targets),
        )

    def _changed(
        self, before: Deployment, command: UpdateDeployment, approved: Mapping[str, Target]
    ) -> Deployment:
        given = {
            name: value
            for name in ("description", "replicas", "max_request_bytes", "timeout_ms", "require_signature")
            if (value := getattr(command, name)) is not None
        }
        if command.targets is not None:
            given["targets"] = _retargeted(before, command.targets, approved)
        state = before.state
        if given.keys() - {"description"} and before.active:
            state = DeploymentState.UPDATING if before.answers else DeploymentState.CREATING
        return replace(before, **given, state=state, revision=before.revision + 1, update_time=self._clock())


def _changeable(deployment: Deployment, etag: str) -> Deployment:
    if etag and etag != deployment.etag:
        raise errors.changed_meanwhile(deployment, etag)
    if deployment.state is DeploymentState.DELETING:
        raise errors.on_its_way_out(deployment)
    return deployment


def _retargeted(
    before: Deployment, specs: Sequence[TargetSpec], approved: Mapping[str, Target]
) -> tuple[Target, ...]:
    """Return the new targets; each knows what answers in its place until the traffic shifts."""
    kept = {target.spec.reference: target for target in before.targets}
    result = []
    for position, spec in enumerate(specs):
        if spec.reference in kept and spec.reference not in approved:
            result.append(replace(kept[spec.reference], spec=spec))
        elif spec.reference in approved:
            place = before.targets[min(position, len(before.targets) - 1)]
            result.append(
                replace(
                    approved[spec.reference],
                    serving=place.serving,
                    serving_digest=place.serving_digest,
                    serving_weight=place.serving_weight,
                )
            )
        else:  # it was a target when the caller's rights were checked, and another caller removed it since
            raise Contention(1)
    return tuple(result)


def _content(deployment: Deployment) -> dict[str, object]:
    return {
        "targets": [
            {"reference": t.spec.reference, "model_version": t.wanted.name, "weight": t.spec.weight}
            for t in deployment.targets
        ],
        "description": deployment.description,
        "replicas": deployment.replicas,
        "max_request_bytes": deployment.max_request_bytes,
        "timeout_ms": deployment.timeout_ms,
        "require_signature": deployment.require_signature,
    }


def _event(verb: str, call: Call, deployment: Deployment, data: Mapping[str, object]) -> outbox.Event:
    return outbox.Event(
        f"inference.deployment.{verb}", deployment.chain[0], call.principal, call.request_id, data
    )
