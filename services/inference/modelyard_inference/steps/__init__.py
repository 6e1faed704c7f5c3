"""Carries out the planner's actions: transactions for what is remembered, the launcher for what runs.

Around every step are failpoints, `inference.before_<step>` and `inference.after_<step>` (`inference.before_shift`), so that
tests can end the process at each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import actions as a
from modelyard_inference import notes
from modelyard_inference.means import Means
from modelyard_inference.models import (
    Condition,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
)
from modelyard_inference.planner.observed import Observed
from modelyard_inference.rows import idle
from modelyard_inference.scale_rows import set_scale
from modelyard_inference.scaling import Cause, Scale
from modelyard_inference.steps.replicas import ReplicaDefaults, ReplicaSteps, Verb
from modelyard_inference.steps.traffic import TrafficSteps, append
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id

_log = structlog.get_logger()


class Steps:
    """One method for each kind of action.

    Args:
        means: its collaborators.
        defaults: what every replica is told.
        wake: called when something that runs in the background has ended.
    """

    def __init__(self, means: Means, defaults: ReplicaDefaults, wake: Callable[[], None]) -> None:
        self._means = means
        self._replicas = ReplicaSteps(means, defaults, wake)
        self._verbs: Mapping[type[a.Action], Verb] = {
            **self._replicas.verbs,
            **TrafficSteps(means).verbs,
            a.AskUse: self._ask_use,
            a.AddGroup: self._add_group,
            a.AddReplicas: self._add_replicas,
            a.ScaleGroup: self._scale_group,
            a.AdmitGroup: self._admit_group,
            a.ReviveGroup: self._revive_group,
            a.EndGroup: self._end_group,
            a.RemoveGroup: self._remove_group,
            a.RouteReplicas: self._route_replicas,
            a.UnrouteReplicas: self._unroute_replicas,
            a.Report: self._report,
            a.RemoveDeployment: self._remove_deployment,
        }

    async def take(self, observed: Observed, actions: Sequence[a.Action]) -> bool:
        """Carry out actions in order; return whether one of them makes it worth to look again at once.

        Raises:
            DomainError: a transaction kept losing; what was done before stands.
        """
        busy = False
        for action in actions:
            if self._replicas.stopping(getattr(action, "replica_id", "")):
                continue
            name = _snake(type(action))
            await failpoint(f"inference.before_{name}")
            busy |= await self._verbs[type(action)](observed, action)
            await failpoint(f"inference.after_{name}")
        return busy

    async def close(self) -> None:
        """Leave what is being stopped to a later life: stopping is repeated then."""
        await self._replicas.close()

    # ---- groups

    async def _ask_use(self, observed: Observed, action: a.AskUse) -> bool:
        self._means.admission.ask(observed.deployment, action.version)
        return False

    async def _add_group(self, observed: Observed, action: a.AddGroup) -> bool:
        deployment = observed.deployment
        version = action.version
        group_id = new_id()
        group = Group(
            id=group_id,
            name=f"{deployment.name.rpartition('.')[2]}-v{version.number}-{group_id}",
            deployment_id=deployment.id,
            version=version,
            max_request_bytes=action.max_request_bytes,
            state=GroupState.STARTING,
            weight=0,
            table_version=0,
            create_time=self._means.clock(),
            require_signature=action.require_signature,
            shadow=action.shadow,
            resources=action.resources,
            batching=action.batching,
            environment_variables=action.environment_variables,
            environment=action.environment,
            scale=Scale(action.replicas) if deployment.autoscaling.on else None,
        )
        replicas = [self._new_replica(group, ordinal) for ordinal in range(action.replicas)]

        async def work(connection: AsyncConnection) -> bool:
            now = await self._means.store.deployment_by_id(connection, deployment.id)
            others = await self._means.store.groups(connection, deployment.id)
            taken = any(other.key == group.key and other.state is not GroupState.STOPPING for other in others)
            if now is None or now.revision != deployment.revision or taken:
                return False
            if version.id not in {target.wanted.id for target in now.targets}:
                return False  # an alias moved on since: nobody was asked about it for later
            await self._means.store.insert_group(connection, group)
            await self._means.store.insert_replicas(connection, replicas)
            return True

        made = await self._means.db.in_tx(work)
        if made:
            _log.info("group_added", deployment=deployment.name, version=version.name, group=group.name)
        return made

    async def _add_replicas(self, observed: Observed, action: a.AddReplicas) -> bool:
        group = observed.group(action.group_id)

        async def work(connection: AsyncConnection) -> None:
            first = await self._means.store.next_ordinal(connection, group.id)
            replicas = [self._new_replica(group, first + offset) for offset in range(action.count)]
            await self._means.store.insert_replicas(connection, replicas)

        await self._means.db.in_tx(work)
        return True

    async def _scale_group(self, observed: Observed, action: a.ScaleGroup) -> bool:
        group, wanted = observed.group(action.group_id), action.scale
        before = observed.count(group)
        after = wanted.replicas if wanted else before
        told = {
            "model_version": group.version.name,
            "before": {"replicas": before},
            "after": {"replicas": after},
            "reason": Cause.of(before, after),
            "in_flight": observed.gateways.in_flight(group),
        }

        async def work(connection: AsyncConnection) -> None:
            await set_scale(connection, group.id, wanted)
            if after != before:
                await append(self._means, connection, "scaled", observed.deployment, told)

        await self._means.db.in_tx(work)
        if after == before:
            return False
        _log.info("group_scaled", group=group.name, replicas=after, in_flight=told["in_flight"])
        return True

    async def _admit_group(self, _observed: Observed, action: a.AdmitGroup) -> bool:
        async def work(connection: AsyncConnection) -> None:
            table = await self._means.store.next_table(connection)
            await self._means.store.set_group(
                connection, action.group_id, GroupState.WARM, weight=0, table_version=table
            )
            await self._means.store.route_replicas(connection, action.replica_ids, table_version=table)

        await self._means.db.in_tx(work)
        return True

    async def _revive_group(self, observed: Observed, action: a.ReviveGroup) -> bool:
        group = observed.group(action.group_id)
        await self._means.db.in_tx(
            lambda connection: self._means.store.set_group(
                connection, group.id, GroupState.WARM, weight=0, table_version=group.table_version
            )
        )
        return True

    async def _end_group(self, observed: Observed, action: a.EndGroup) -> bool:
        group = observed.group(action.group_id)
        replica_ids = [replica.id for replica in observed.replicas_of(group)]

        async def work(connection: AsyncConnection) -> None:
            routed = group.state is not GroupState.STARTING
            table = await self._means.store.next_table(connection) if routed else 0
            await self._means.store.set_group(
                connection, group.id, GroupState.STOPPING, weight=0, table_version=table
            )
            await self._means.store.drain_replicas(connection, replica_ids, table_version=table)

        await self._means.db.in_tx(work)
        _log.info(
            "group_ended", deployment=observed.deployment.name, version=group.version.name, group=group.name
        )
        return True

    async def _remove_group(self, _observed: Observed, action: a.RemoveGroup) -> bool:
        await self._means.db.in_tx(
            lambda connection: self._means.store.delete_group(connection, action.group_id)
        )
        return True

    async def _route_replicas(self, _observed: Observed, action: a.RouteReplicas) -> bool:
        async def work(connection: AsyncConnection) -> None:
            table = await self._means.store.next_table(connection)
            await self._means.store.route_replicas(connection, action.replica_ids, table_version=table)

        await self._means.db.in_tx(work)
        return True

    async def _unroute_replicas(self, observed: Observed, action: a.UnrouteReplicas) -> bool:
        routed = any(r.routed for r in observed.replicas if r.id in action.replica_ids)

        async def work(connection: AsyncConnection) -> None:
            table = await self._means.store.next_table(connection) if routed else 0
            await self._means.store.drain_replicas(connection, action.replica_ids, table_version=table)

        await self._means.db.in_tx(work)
        return True

    # ---- traffic and state

    async def _report(self, observed: Observed, action: a.Report) -> bool:
        deployment = observed.deployment
        conditions = _dated(action.conditions, deployment.conditions, self._means.clock())

        async def work(connection: AsyncConnection) -> bool:
            written = await self._means.store.set_state(
                connection, deployment, action.state, action.message, conditions
            )
            if written and idle(deployment) is not idle(replace(deployment, state=action.state)):
                await self._means.store.next_table(connection)  # gateways say why nothing answers
            failed = action.state is DeploymentState.FAILED
            if written and failed and deployment.state is not DeploymentState.FAILED:
                await append(self._means, connection, "failed", deployment, {"reason": action.message})
            return written

        told = await self._means.db.in_tx(work)
        if action.state is not deployment.state:
            _log.info(
                "deployment_state", deployment=deployment.name, state=action.state, reason=action.message
            )
        return told  # the next look tells those who watch

    async def _remove_deployment(self, observed: Observed, _action: a.RemoveDeployment) -> bool:
        deployment = observed.deployment

        async def work(connection: AsyncConnection) -> None:
            await self._means.store.delete_deployment(connection, deployment.id)
            await notes.removed(connection, deployment, self._means.clock())
            await append(self._means, connection, "removed", deployment, {})

        await self._means.db.in_tx(work)
        _log.info("deployment_removed", deployment=deployment.name)
        return False

    # ---- helpers

    def _new_replica(self, group: Group, ordinal: int) -> Replica:
        replica_id = new_id()
        return Replica(
            id=replica_id,
            group_id=group.id,
            deployment_id=group.deployment_id,
            ordinal=ordinal,
            address=self._means.launcher.address(replica_id),
            state=ReplicaState.STARTING,
            routed=False,
            table_version=0,
            process_id=0,
            process_started="",
            restarts=0,
            failures=0,
            message="",
            create_time=self._means.clock(),
        )


def _dated(
    conditions: Sequence[Condition], before: Sequence[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Return conditions with the times at which their status last changed."""
    known = {(condition.type, condition.status): condition.change_time for condition in before}
    return tuple(replace(c, change_time=known.get((c.type, c.status)) or now) for c in conditions)


def _snake(kind: type[a.Action]) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", kind.__name__).lower()
