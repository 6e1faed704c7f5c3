"""Carries out the actions that move the traffic of a deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import actions as a
from modelyard_inference import notes, origins
from modelyard_inference.canary import Rejection
from modelyard_inference.deeds import Deed, content, remember
from modelyard_inference.failures import LAST_FAILURES, last_failure
from modelyard_inference.means import Means
from modelyard_inference.models import Change, Deployment, Group, GroupKey, GroupState, Target
from modelyard_inference.planner.desired import key_of
from modelyard_inference.planner.observed import Observed
from modelyard_inference.steps.replicas import Verb
from modelyard_kit import outbox
from modelyard_kit.auth import Call

MAX_REASON = 1024
"""Characters of a reason in the history."""

_log = structlog.get_logger()


class TrafficSteps:
    """One method for each kind of action on the traffic.

    Args:
        means: its collaborators.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self.verbs: Mapping[type[a.Action], Verb] = {a.Shift: self._shift, a.TakeBack: self._take_back}

    async def _shift(self, observed: Observed, action: a.Shift) -> bool:
        deployment = observed.deployment

        async def work(connection: AsyncConnection) -> bool:
            now = await self._unchanged(connection, deployment)
            if now is None:
                return False
            groups = await self._means.store.groups(connection, deployment.id)
            await self._set_weights(connection, groups, action)
            watch = action.rollout if action.rollout and action.rollout.watching else None
            if action.rollout is watch:
                serving = _now_serving if action.weights else _nothing_serving
                await self._means.store.replace_targets(connection, now.id, map(serving, now.targets))
                if action.weights:
                    begins = watch is not None and watch != now.rollout
                    await origins.remember(connection, now, replaces=begins)
            if action.rollout != now.rollout:
                await origins.set_rollout(connection, now.id, action.rollout)
            answering = {g.version.id for g in groups if g.id in action.weights and not g.shadow}
            await notes.answering(connection, deployment, sorted(answering), self._means.clock())
            await append(self._means, connection, "shifted", deployment, _told(groups, action))
            return True

        shifted = await self._means.db.in_tx(work)
        if shifted:
            step = _step(action)
            _log.info("traffic_shifted", deployment=deployment.name, groups=len(action.weights), step=step)
        return shifted

    async def _set_weights(self, connection: AsyncConnection, groups: list[Group], action: a.Shift) -> None:
        table = await self._means.store.next_table(connection)
        kept = action.rollout.kept if action.rollout else ()
        for group in groups:
            weight = action.weights.get(group.id, 0)
            if not weight and group.state is not GroupState.SERVING:
                continue
            state = GroupState.WARM if group.id in kept else GroupState.DRAINING
            await self._means.store.set_group(
                connection,
                group.id,
                GroupState.SERVING if weight else state,
                weight=weight,
                table_version=table,
            )

    async def _take_back(self, observed: Observed, action: a.TakeBack) -> bool:
        deployment = observed.deployment
        reason = action.reason + await self._last_failure(observed, action.versions)

        async def work(connection: AsyncConnection) -> bool:
            now = await self._unchanged(connection, deployment)
            origin = await origins.find(connection, deployment.id, before=action.watched)
            if now is None or origin is None:
                return False
            rejection = Rejection(reason, action.versions)
            back = origins.taken_back(now, origin, rejection)
            after = replace(back, update_time=self._means.clock())
            await self._means.store.update_deployment(connection, after)
            await self._means.store.replace_targets(connection, after.id, after.targets)
            await self._means.store.route_changed(connection, after.id)  # the size limit may be another again
            deed = Deed(Change.ROLLED_BACK, reason[-MAX_REASON:])
            call = Call(self._means.actor(), "")
            await remember(connection, call, deed, after, {"before": content(now), "after": content(after)})
            return True

        taken = await self._means.db.in_tx(work)
        if taken:
            _log.warning("rollout_taken_back", deployment=deployment.name, reason=reason)
        return taken

    async def _last_failure(self, observed: Observed, version_ids: frozenset[str]) -> str:
        """Tell how the models that have to go failed last, before their logs go with them."""
        going = {group.id for group in observed.groups if group.version.id in version_ids}
        for replica in observed.replicas:
            if replica.group_id in going:
                piece = await self._means.launcher.log_tail(replica.id, LAST_FAILURES)
                if told := last_failure(piece.lines):
                    return f"; the model failed last with {told}"
        return ""

    async def _unchanged(self, connection: AsyncConnection, deployment: Deployment) -> Deployment | None:
        """Return a deployment as it is now, if it wants what the decision was made from."""
        now = await self._means.store.deployment_by_id(connection, deployment.id)
        if now is None or now.revision != deployment.revision or now.rollout != deployment.rollout:
            return None
        return now if _wanted(now) == _wanted(deployment) else None


async def append(
    means: Means,
    connection: AsyncConnection,
    verb: str,
    deployment: Deployment,
    data: Mapping[str, object],
) -> None:
    """Write an event of what the service did by itself."""
    event = outbox.Event(f"inference.deployment.{verb}", deployment.chain[0], means.actor(), "", data)
    await outbox.append(connection, event)


def _told(groups: list[Group], action: a.Shift) -> dict[str, object]:
    before, after = Counter[str](), Counter[str]()
    for group in groups:
        if group.shadow:
            continue
        if group.state is GroupState.SERVING:
            before[group.version.name] += group.weight
        if weight := action.weights.get(group.id, 0):
            after[group.version.name] += weight
    step = {"step": _step(action)} if _step(action) else {}
    return {"before": dict(before), "after": dict(after), **step}


def _step(action: a.Shift) -> int:
    return action.rollout.step + 1 if action.rollout and not action.rollout.watching else 0


def _wanted(deployment: Deployment) -> list[tuple[GroupKey, int]]:
    return [(key_of(deployment, target), target.spec.share) for target in deployment.targets]


def _nothing_serving(target: Target) -> Target:
    return replace(target, serving="", serving_digest="", serving_weight=0)


def _now_serving(target: Target) -> Target:
    return replace(
        target,
        serving=target.wanted.name,
        serving_digest=target.wanted.artifact_digest,
        serving_weight=target.spec.weight,
    )
