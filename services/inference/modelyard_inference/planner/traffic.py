"""When the traffic moves, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from modelyard_inference.actions import Action, Shift, TakeBack
from modelyard_inference.canary import Figures, Rollout, breach, step_weights
from modelyard_inference.models import GroupState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.exchange import exchange, leaving
from modelyard_inference.planner.observed import Observed
from modelyard_inference.planner.shifts import cannot_start, versions, when_ready


def traffic(state: Plan) -> Iterator[Action]:
    """Move the traffic when everything that should get it can take it: at once, as far as the step of a rollout says, or in an exchange."""
    deployment = state.observed.deployment
    if deployment.leaving:
        if state.served:
            yield Shift({})
        return
    if len(state.wanted_groups) < len(state.desired):
        return
    if deployment.preserves_resources and (deployment.rollout is not None or leaving(state)):
        yield from exchange(state)
        return
    fresh = state.fresh
    starting = [group for group in fresh if group.state is GroupState.STARTING]
    if reason := cannot_start(state.observed, starting):
        yield TakeBack(reason, versions(fresh))
    elif fresh and not (deployment.rollout and deployment.rollout.promoted):
        yield from _step(state, {group.id for group in fresh})
    elif state.shares != state.final or deployment.rollout is not None:
        yield from when_ready(state, Shift(state.final))


def _step(state: Plan, fresh: Collection[str]) -> Iterator[Action]:
    observed = state.observed
    rollout = observed.deployment.rollout
    if rollout is None or rollout.fresh != fresh:
        first = Rollout(frozenset(fresh), state.old, 0, observed.now, _counted(observed))
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
                rollout, step=rollout.step + 1, since=observed.now, baseline=_counted(observed)
            )
            yield from when_ready(state, _shift_to(state, following))
    elif (again := _shift_to(state, rollout)).weights != state.shares:
        begun_anew = replace(rollout, since=observed.now, baseline=_counted(observed))
        yield from when_ready(state, replace(again, rollout=begun_anew))


def since_step(observed: Observed, rollout: Rollout, group_ids: Collection[str]) -> Figures:
    """Return what all gateways counted about some groups since the step began."""
    names = [group.name for group in observed.groups if group.id in group_ids]
    total = Figures()
    for gateway in observed.gateways.live:
        before: Mapping[str, Figures] = rollout.baseline.get(gateway.id, {})
        for name in names:
            total += gateway.figures.get(name, Figures()).since(before.get(name, Figures()))
    return total


def _counted(observed: Observed) -> dict[str, Mapping[str, Figures]]:
    names = {group.name for group in observed.groups}
    return {
        gateway.id: {name: found for name, found in gateway.figures.items() if name in names}
        for gateway in observed.gateways.live
    }


def _shift_to(state: Plan, rollout: Rollout) -> Shift:
    percent = state.observed.deployment.rollout_policy.percent_at(rollout.step)
    shadows = {group.id for group in state.wanted_groups if group.shadow}
    new = {group_id: weight for group_id, weight in state.final.items() if group_id not in shadows}
    copies = {group_id: state.final[group_id] for group_id in shadows}
    return Shift({**step_weights(state.old, new, percent), **copies}, rollout)
