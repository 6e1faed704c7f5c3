"""When the traffic moves, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from modelyard_inference.actions import Action, Shift, TakeBack
from modelyard_inference.canary import Rollout, breach, step_weights
from modelyard_inference.models import GroupState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.exchange import exchange, leaving
from modelyard_inference.planner.shifts import cannot_start, counted, since_step, versions, when_ready
from modelyard_inference.planner.watch import watch, watched


def traffic(state: Plan) -> Iterator[Action]:
    """Move the traffic when everything that should get it can take it: at once, as far as the step of a rollout says, or in an exchange."""
    deployment = state.observed.deployment
    if deployment.leaving:
        if state.served:
            yield Shift({})
        return
    if len(state.wanted_groups) < len(state.desired):
        return
    rollout = deployment.rollout
    moving = rollout is not None and not rollout.watching
    if deployment.preserves_resources and (moving or leaving(state)):
        yield from exchange(state)
        return
    fresh = state.fresh
    starting = [group for group in fresh if group.state is GroupState.STARTING]
    if reason := cannot_start(state.observed, starting):
        yield TakeBack(reason, versions(fresh))
    elif fresh and not (rollout and rollout.promoted):
        yield from _step(state, {group.id for group in fresh})
    elif state.shares != state.final or rollout != watched(state):
        yield from when_ready(state, Shift(state.final, watched(state)))
    elif rollout is not None:
        yield from watch(state, rollout)


def _step(state: Plan, fresh: Collection[str]) -> Iterator[Action]:
    observed = state.observed
    rollout = observed.deployment.rollout
    if rollout is None or rollout.fresh != fresh:
        first = Rollout(frozenset(fresh), state.old, 0, observed.now, counted(observed))
        yield from when_ready(state, _shift_to(state, first))
        return
    policy = observed.deployment.rollout_policy
    new, old = since_step(observed, rollout, fresh), since_step(observed, rollout, rollout.old)
    problem = breach(policy, new, old)
    if problem:
        told = ", ".join(sorted({group.version.name for group in state.fresh}))
        percent = policy.percent_at(rollout.step)
        yield TakeBack(
            f"{told} was taken back at {percent} % of the traffic: {problem} ({new})", versions(state.fresh)
        )
        return
    passed = (observed.now - rollout.since).total_seconds() * 1000 >= policy.pause_ms
    if passed and new.requests >= policy.min_requests and not rollout.paused:
        if rollout.step + 1 >= len(policy.steps):
            yield from when_ready(state, Shift(state.final))
        else:
            following = replace(
                rollout, step=rollout.step + 1, since=observed.now, baseline=counted(observed)
            )
            yield from when_ready(state, _shift_to(state, following))
    elif (again := _shift_to(state, rollout)).weights != state.shares:
        begun_anew = replace(rollout, since=observed.now, baseline=counted(observed))
        yield from when_ready(state, replace(again, rollout=begun_anew))


def _shift_to(state: Plan, rollout: Rollout) -> Shift:
    percent = state.observed.deployment.rollout_policy.percent_at(rollout.step)
    shadows = {group.id for group in state.wanted_groups if group.shadow}
    new = {group_id: weight for group_id, weight in state.final.items() if group_id not in shadows}
    copies = {group_id: state.final[group_id] for group_id in shadows}
    return Shift({**step_weights(state.old, new, percent), **copies}, rollout)
