"""A version that took over at once is watched for a while, and goes back if most of what it is asked fails.

What was before has ended by then, so that nothing is kept running for it: it is started again before the traffic moves back.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelyard_inference.actions import Action, Shift, TakeBack
from modelyard_inference.canary import WATCH, Figures, Rollout, breach
from modelyard_inference.models import ReplicaState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.shifts import counted, since_step, versions, when_ready


def watch(state: Plan, rollout: Rollout) -> Iterator[Action]:
    """Take back what fails; let it be when its time has passed."""
    observed = state.observed
    fresh = [group for group in state.wanted_groups if group.id in rollout.fresh]
    new = since_step(observed, rollout, rollout.fresh)
    if problem := breach(WATCH, new, Figures()):
        told = ", ".join(sorted({group.version.name for group in fresh}))
        replicas = [replica for group in fresh for replica in observed.replicas_of(group)]
        ends = [r.message for r in replicas if r.message and r.state is not ReplicaState.READY]
        why = f"; a replica ended: {ends[0]}" if ends else ""
        reason = f"{told} was taken back after it had taken over: {problem} ({new}){why}"
        yield TakeBack(reason, versions(fresh), watched=True)
    elif (observed.now - rollout.since).total_seconds() * 1000 >= WATCH.pause_ms:
        yield from when_ready(state, Shift(state.final))


def watched(state: Plan) -> Rollout | None:
    """Return the watch that begins with the traffic as it should be, or goes on; None if there is nothing to watch."""
    deployment = state.observed.deployment
    rollout = deployment.rollout
    before = rollout.old if rollout is not None and rollout.exchange else state.old
    answering = {group.id for group in state.wanted_groups if not group.shadow}
    fresh = answering - before.keys()
    if fresh and before and not deployment.rejection and not deployment.rollout_policy.steps:
        since, baseline = state.observed.now, counted(state.observed)
        return Rollout(frozenset(fresh), {}, 0, since, baseline, watching=True)
    goes_on = rollout is not None and rollout.watching and rollout.fresh <= answering
    return rollout if goes_on else None
