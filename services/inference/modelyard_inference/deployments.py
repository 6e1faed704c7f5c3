"""The use cases of deployments: what callers may ask for. Making it true is the reconciler's business."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import combinations, environment_policy, errors, history, log_policy, notes, rows
from modelyard_inference.commands import CreateDeployment, RollbackDeployment, SetActive, UpdateDeployment
from modelyard_inference.deeds import Deed, content, event, remember
from modelyard_inference.lookups import Lookups
from modelyard_inference.models import Change, Deployment, DeploymentState, Target
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore
from modelyard_inference.targets import Targets, retargeted
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Chain, Privilege
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField
from modelyard_kit.faults import failpoint
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id

_CREATE = "CreateDeployment"
_NOT_ROLLED_OUT = frozenset(("description", "owner_id", "rollout_policy", "log_policy", "update_strategy"))
_CHANGEABLE = (
    "description",
    "replicas",
    "max_request_bytes",
    "timeout_ms",
    "require_signature",
    "sticky_header",
    "rollout_policy",
    "resources",
    "autoscaling",
    "traffic_limits",
    "private",
    "log_policy",
    "batching",
    "environment_variables",
    "environment",
    "update_strategy",
    "owner_id",
)


class Deployments:
    """Creates, changes and deletes deployments.

    Args:
        db: the database.
        store: its tables.
        lookups: reads them.
        upstream: catalog and governance.
        grants: what principals may do.
        clock: the time.
        wake: called after every committed change, so that the reconciler looks at once.
        log_destinations: where logs of predictions may go beside the files of replicas.
        builds_environments: whether replicas may run in environments that are built for them.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        lookups: Lookups,
        upstream: Upstream,
        grants: Grants,
        clock: Clock,
        wake: Callable[[], None],
        *,
        log_destinations: Collection[str] = (),
        builds_environments: bool = False,
    ) -> None:
        self._log_destinations = log_destinations
        self._builds = builds_environments
        self._db = db
        self._store = store
        self._lookups = lookups
        self._upstream = upstream
        self._grants = grants
        self._targets = Targets(upstream, grants)
        self._clock = clock
        self._wake = wake

    async def create(self, call: Call, command: CreateDeployment) -> Deployment:
        """Make a deployment, owned by the caller.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: schema, model, version or alias does not exist.
            InvalidState: a version is not READY.
            InvalidField: logs are to go where this installation has no place for them, or it builds no environments.
            PermissionDenied: the caller lacks DEPLOY on a model.
            PolicyUnmet: a policy forbids to deploy a version.
            RequestIdReused: the request id was used with other content.
            InvalidField: settings exclude each other.
            PeerUnavailable: catalog or governance does not answer.
        """
        log_policy.require(command.log_policy, self._log_destinations)
        environment_policy.require(command.environment, builds=self._builds)
        before = await self._db.read(lambda connection: self._replay(connection, call, command))
        if before:
            return before
        schema = await self._upstream.schema_chain(command.schema)
        targets = [
            Target(spec, wanted=version)
            for spec, version in await self._targets.approve(call, command.targets)
        ]
        made = self._new(call, command, schema, targets)
        combinations.check(made)
        await failpoint("inference.deployment.resolved")

        async def work(connection: AsyncConnection) -> Deployment:
            again = await self._replay(connection, call, command)
            if again:
                return again
            if await self._store.deployment(connection, command.name):
                raise errors.name_taken(command.name)
            await self._store.insert_deployment(connection, made)
            await self._store.next_table(connection)  # gateways say that it is being started
            await idempotency.remember(
                connection,
                principal_id=call.principal.id,
                method=_CREATE,
                request_id=command.request_id,
                fingerprint=command.fingerprint,
                resource_id=made.id,
            )
            deed = Deed(Change.CREATED, command.reason)
            await remember(connection, call, deed, made, {"after": content(made)})
            return made

        created = await self._db.in_tx(work)
        await failpoint("inference.deployment.created")
        self._wake()
        return created

    async def update(self, call: Call, command: UpdateDeployment) -> Deployment:
        """Change a deployment.

        Raises:
            NotFound: there is none of that name, or a target does not exist.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted, or a version is not READY.
            InvalidField: there is no principal with the id of the new owner, settings exclude each other, or this installation cannot do what is asked of it.
            PermissionDenied: the caller lacks DEPLOY on the model of a new target, or MANAGE to change the owner.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        log_policy.require(command.log_policy, self._log_destinations)
        updated = await self._apply(call, command, Deed(Change.UPDATED, command.reason))
        await failpoint("inference.deployment.updated")
        self._wake()
        return updated

    async def rollback(self, call: Call, command: RollbackDeployment) -> Deployment:
        """Bring the settings of an earlier revision back, as a new one; owner and activity stay.

        Raises:
            NotFound: there is no such deployment or revision, or a version or model of it is gone.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted, or a version is not READY.
            InvalidField: no revision is named, and none has other settings, or its environment cannot be built here.
            PermissionDenied: the caller lacks DEPLOY on the model of a target that it does not have now.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        now = _changeable(await self._lookups.get(command.name), command.etag)
        revision = await self._db.read(lambda connection: history.wanted(connection, now, command))
        back = revision.settings
        update = UpdateDeployment(
            command.name,
            command.etag,
            targets=await self._targets.past(back.targets, pinned=command.pin_versions),
            **{name: getattr(back, name) for name in _CHANGEABLE if name != "owner_id"},
        )
        rolled_back = await self._apply(
            call, update, Deed(Change.ROLLED_BACK, command.reason, revision.number)
        )
        await failpoint("inference.deployment.rolled_back")
        self._wake()
        return rolled_back

    async def activate(self, call: Call, command: SetActive) -> Deployment:
        """Let a deployment answer again; harmless when it does.

        Raises:
            NotFound: there is none of that name, or a version of it is gone.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted.
            PermissionDenied: the caller lacks DEPLOY on the model of a target.
            PolicyUnmet: a policy forbids to deploy a version.
            PeerUnavailable: catalog or governance does not answer.
        """
        await self._targets.again(call, _changeable(await self._lookups.get(command.name), command.etag))
        activated = await self._set_active(call, command, Change.ACTIVATED)
        await failpoint("inference.deployment.activated")
        self._wake()
        return activated

    async def deactivate(self, call: Call, command: SetActive) -> Deployment:
        """Drain and end everything that a deployment runs and keep the rest; harmless when nothing runs.

        Raises:
            NotFound: there is none of that name.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: it is being deleted.
        """
        deactivated = await self._set_active(call, command, Change.DEACTIVATED)
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
            await self._reroute(connection, found, after)
            await outbox.append(connection, event("deleted", call, after, {"before": content(found)}))
            return after

        deleted = await self._db.in_tx(work)
        await failpoint("inference.deployment.deleted")
        self._wake()
        return deleted

    async def _apply(self, call: Call, command: UpdateDeployment, deed: Deed) -> Deployment:
        environment_policy.require(command.environment, builds=self._builds)
        now = _changeable(await self._lookups.get(command.name), command.etag)
        kept = await self._targets.still_meant(now.targets, command.targets or ())
        new = [spec for spec in command.targets or () if spec.reference not in kept]
        approved = {
            spec.reference: Target(spec, wanted=found)
            for spec, found in await self._targets.approve(call, new)
        }

        async def work(connection: AsyncConnection) -> Deployment:
            found = await self._store.deployment(connection, command.name)
            if found is None:
                raise errors.no_deployment(command.name)
            before = _changeable(found, command.etag)
            self._check_owner(call, before, command.owner_id)
            after = self._changed(before, command, approved)
            combinations.check(after)
            await self._write(connection, before, after)
            data = {"before": content(before), "after": content(after)}
            await remember(connection, call, deed, after, data, before=before)
            return after

        return await self._db.in_tx(work)

    def _check_owner(self, call: Call, before: Deployment, owner_id: str | None) -> None:
        if owner_id is None or owner_id == before.owner_id:
            return
        self._grants.require(call.principal, Privilege.MANAGE, before.chain)
        if owner_id not in self._grants.principals():
            raise InvalidField("deployment.owner_id", f"there is no principal with the id {owner_id!r}")

    async def _write(self, connection: AsyncConnection, before: Deployment, after: Deployment) -> None:
        await self._store.update_deployment(connection, after)
        if after.targets != before.targets:
            await self._store.replace_targets(connection, after.id, after.targets)
        if after.state is not before.state:
            await self._store.try_again(connection, after.id)
        await self._reroute(connection, before, after)
        if after.owner_id != before.owner_id:
            await notes.owned(connection, after, self._clock())

    async def _reroute(self, connection: AsyncConnection, before: Deployment, after: Deployment) -> None:
        if rows.of_route(after) != rows.of_route(before):
            await self._store.route_changed(connection, after.id)

    async def _set_active(self, call: Call, command: SetActive, change: Change) -> Deployment:
        active = change is Change.ACTIVATED

        async def work(connection: AsyncConnection) -> Deployment:
            found = await self._store.deployment(connection, command.name)
            if found is None:
                raise errors.no_deployment(command.name)
            before = _changeable(found, command.etag)
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
            await self._reroute(connection, before, after)
            await remember(connection, call, Deed(change, command.reason), after, {"after": content(after)})
            return after

        return await self._db.in_tx(work)

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
            sticky_header=command.sticky_header,
            rollout_policy=command.rollout_policy,
            resources=command.resources,
            autoscaling=command.autoscaling,
            traffic_limits=command.traffic_limits,
            private=command.private,
            log_policy=command.log_policy,
            batching=command.batching,
            environment_variables=command.environment_variables,
            environment=command.environment,
            update_strategy=command.update_strategy,
            targets=tuple(targets),
        )

    def _changed(
        self, before: Deployment, command: UpdateDeployment, approved: Mapping[str, Target]
    ) -> Deployment:
        given: dict[str, Any] = {
            name: value for name in _CHANGEABLE if (value := getattr(command, name)) is not None
        }
        if command.targets is not None:
            given["targets"] = retargeted(before, command.targets, approved)
        state = before.state
        if given.keys() - _NOT_ROLLED_OUT:
            given["rejection"] = None
            if before.active:
                state = DeploymentState.UPDATING if before.answers else DeploymentState.CREATING
        return replace(before, **given, state=state, revision=before.revision + 1, update_time=self._clock())


def _changeable(deployment: Deployment, etag: str) -> Deployment:
    if etag and etag != deployment.etag:
        raise errors.changed_meanwhile(deployment, etag)
    if deployment.state is DeploymentState.DELETING:
        raise errors.on_its_way_out(deployment)
    return deployment
