"""Rollouts in steps when steps fail and the service dies between them, on real processes and a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest

from modelyard_inference.canary import RolloutPolicy
from modelyard_inference.commands import (
    ControlRollout,
    ListRevisions,
    RollbackDeployment,
    RolloutVerb,
    UpdateDeployment,
)
from modelyard_inference.models import Change, Deployment, DeploymentState
from modelyard_kit import faults
from modelyard_kit.errors import EtagMismatch, InvalidState
from modelyard_kit.filters import Asked
from tests.faults.test_inference_faults import Counted
from tests.framework.inference import SERVICE, Inference, Site, call, creation, site, spec

NAME = "prod.ml.iris"
ONE, TWO, THREE = (f"{NAME}/{number}" for number in (1, 2, 3))
POLICY = RolloutPolicy((20, 100), min_requests=10, max_error_percent=5.0, max_error_rise=100.0)
FAILURE = {
    "event": "model_failed",
    "level": "error",
    "timestamp": "2026-01-01T00:00:00Z",
    "request_ids": ["r-1"],
    "exception": 'Traceback:\n  File "/models/model.py", line 12, in predict\nValueError: what was asked',
}
"""A line that a replica writes about a prediction."""
SHARED = {ONE: 800_000, TWO: 200_000}


@pytest.fixture
async def place(fresh_database: Callable[[str], str]) -> AsyncIterator[Site]:
    async with site(fresh_database("modelyard_inference")) as made:
        for number in (1, 2, 3):
            made.upstream.add(number)
        yield made
    faults.configure("")


def stands_at(step: int) -> Callable[[Deployment], bool]:
    return lambda found: found.rollout is not None and found.rollout.step + 1 == step


def shifted(found: Deployment) -> tuple[str, str]:
    """Return reason and message of the condition that tells of the traffic; it may come a moment after what it tells."""
    (condition,) = (c for c in found.conditions if c.type == "TrafficShifted")
    return condition.reason, condition.message


async def begin(inference: Inference, target: str = TWO, first: str = ONE) -> None:
    await inference.deployments.create(call(), creation(NAME, spec(first), rollout_policy=POLICY))
    await inference.until_state(DeploymentState.ACTIVE)
    if target != first:
        update = UpdateDeployment(NAME, "", targets=(spec(target),))
        await inference.deployments.update(call(), update)
        await inference.until(stands_at(1))


async def test_steps_are_taken_though_each_may_fail_and_the_service_dies_between(place: Site) -> None:
    async with place.life() as inference:
        faults.configure("inference.before_shift=error*2;inference.after_shift=error*2")
        await begin(inference)
        await inference.until(lambda _: place.gateway.weights() == SHARED)
        assert (await inference.get()).targets[0].serving == ONE
        place.gateway.count(inference.routes, TWO, 9)
    async with place.life() as inference:
        found = await inference.until(lambda d: bool(place.gateway.tables) and stands_at(1)(d))
        assert found.state is DeploymentState.UPDATING
        place.gateway.count(inference.routes, TWO, 1)  # the tenth, the others were counted in the life before
        second = await inference.until(lambda d: stands_at(2)(d) and shifted(d)[0] == "STEP")
        assert shifted(second)[1] in (
            f"step {n} of 2: {percent} % of the traffic to {TWO}" for n, percent in ((1, 20), (2, 100))
        )
    async with place.life() as inference:
        await inference.until(lambda d: bool(place.gateway.tables) and stands_at(2)(d))
        assert place.gateway.weights() == {ONE: 0, TWO: 1_000_000}
        assert len(await inference.launcher.list()) == 2  # the way back is kept
        place.gateway.count(inference.routes, TWO, 10)
        done = await inference.until_state(DeploymentState.ACTIVE)
        assert (done.targets[0].serving, done.rollout) == (TWO, None)
        await inference.until_quiet()
        assert place.gateway.weights() == {TWO: 1}
    assert place.gateway.gaps() == []


async def test_errors_take_it_back_with_the_reason(place: Site) -> None:
    counting = Counted()
    async with place.life() as inference:
        await begin(inference)
        faults.configure("inference.before_take_back=error*1;inference.after_take_back=error*1")
        with counting:
            place.gateway.count(inference.routes, TWO, 17, failed=3)
            failed = await inference.until_state(DeploymentState.FAILED)
        assert counting.reached >= {"inference.before_take_back", "inference.after_take_back"}
        assert failed.state_message == (
            f"{TWO} was taken back at 20 % of the traffic: more than 5 % failed"
            " (15.0 % of 20 predictions failed, 95 % took at most 1.9 ms)"
        )
        assert [(t.spec.reference, t.serving) for t in failed.targets] == [(ONE, ONE)]
        await inference.until_quiet()
        assert place.gateway.weights() == {ONE: 1}
        assert place.gateway.gaps() == []
        _, (newest, *_), _ = await inference.lookups.revisions(ListRevisions(NAME, Asked(size=5)))
        assert (newest.change, newest.actor_name, newest.reason) == (
            Change.ROLLED_BACK,
            SERVICE.name,
            failed.state_message,
        )
        again = UpdateDeployment(NAME, "", targets=(spec(TWO),))  # a caller may ask for the same once more
        await inference.deployments.update(call(), again)
        found = await inference.until(stands_at(1))
        assert found.rejection is None


async def test_after_everything_has_shifted_the_way_back_needs_no_start(place: Site) -> None:
    async with place.life() as inference:
        await begin(inference)
        before = {handle.process_id for handle in await inference.launcher.list()}
        place.gateway.count(inference.routes, TWO, 10)
        await inference.until(stands_at(2))
        await inference.until(lambda _: place.gateway.weights().get(ONE) == 0)
        place.gateway.count(inference.routes, TWO, 0, failed=10)
        await inference.until_state(DeploymentState.FAILED)
        assert place.gateway.weights()[ONE] == 1
        assert place.gateway.gaps() == []
        assert {handle.process_id for handle in await inference.launcher.list()} <= before


async def test_a_followed_alias_does_not_bring_back_what_was_taken_back(place: Site) -> None:
    champion = f"{NAME}@champion"
    place.upstream.aliases[champion] = ONE
    async with place.life() as inference:
        await begin(inference, champion, champion)
        place.upstream.aliases[champion] = TWO
        await inference.until(stands_at(1))
        place.gateway.count(inference.routes, TWO, 0, failed=10)
        await inference.until_state(DeploymentState.FAILED)
        await inference.until_quiet()
        found = await inference.get()
        assert (found.targets[0].wanted.name, found.targets[0].problem) == (ONE, "")
        place.upstream.aliases[champion] = THREE
        third = await inference.until(stands_at(1))
        assert third.targets[0].wanted.name == THREE


async def test_a_version_that_cannot_be_loaded_is_taken_back_with_the_end_of_its_log(place: Site) -> None:
    place.upstream.add(2, runtime="broken")
    async with place.life() as inference:
        await begin(inference, ONE)
        smaller = UpdateDeployment(NAME, "", targets=(spec(TWO),), max_request_bytes=2**10)
        await inference.deployments.update(call(), smaller)
        back = await inference.until(lambda d: d.rejection is not None)
        assert ([t.spec.reference for t in back.targets], back.max_request_bytes) == ([ONE], 2**20)
        failed = await inference.until_state(DeploymentState.FAILED)
        assert failed.state_message.startswith(f"{TWO} was taken back, it could not be started: ")
        assert f"tiny replica of {TWO}" in failed.state_message
        await inference.until_quiet()
        await inference.until(lambda _: place.gateway.table.routes[0].max_request_bytes == 2**20)
        assert place.gateway.weights() == {ONE: 1}


async def test_what_took_over_at_once_goes_back_if_most_of_it_fails(place: Site) -> None:
    """What it goes back to has ended by then, and starts again; what came after it in the meantime counts as proven."""
    counting = Counted()
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(NAME, spec(ONE)))
        for wanted in (TWO, THREE):
            await inference.until_state(DeploymentState.ACTIVE)
            await inference.deployments.update(call(), UpdateDeployment(NAME, "", targets=(spec(wanted),)))
            await inference.until(lambda d: d.targets[0].serving == wanted)  # noqa: B023 - asked at once
        await inference.until_quiet()
        await inference.until(lambda _: place.gateway.table.routes[0].measured)
        assert (await inference.until_state(DeploymentState.ACTIVE)).state_message == ""
        with pytest.raises(InvalidState):  # it is no rollout in steps
            await inference.rollouts.control(call(), ControlRollout(NAME, RolloutVerb.PAUSE))
        place.gateway.count(inference.routes, THREE, 9, failed=9)
        (handle,) = await inference.launcher.list()
        with (place.folder / "r" / "replicas" / handle.replica_id / "log").open("a") as log:
            log.write(json.dumps(FAILURE) + "\n")
    async with place.life() as inference:
        await inference.until(lambda _: bool(place.gateway.tables))
        faults.configure("inference.before_take_back=error*1;inference.after_take_back=error*1")
        with counting:
            place.gateway.count(inference.routes, THREE, 0, failed=2)
            failed = await inference.until_state(DeploymentState.FAILED)
        assert counting.reached >= {"inference.before_take_back", "inference.after_take_back"}
        assert failed.state_message == (
            f"{THREE} was taken back after it had taken over: more than 50 % failed"
            " (55.0 % of 20 predictions failed, 95 % took at most 1.9 ms);"
            " the model failed last with ValueError in model.py, line 12, in predict"
        )
        await inference.until_quiet()
        assert [(t.spec.reference, t.serving) for t in (await inference.get()).targets] == [(TWO, TWO)]
        assert place.gateway.weights() == {TWO: 1}
        assert not place.gateway.table.routes[0].measured
    assert place.gateway.gaps() == []


async def test_callers_steer_it(place: Site) -> None:
    async with place.life() as inference:
        await begin(inference)
        control = inference.rollouts.control
        paused = await control(call(), ControlRollout(NAME, RolloutVerb.PAUSE))
        assert paused == await control(call(), ControlRollout(NAME, RolloutVerb.PAUSE))
        place.gateway.count(inference.routes, TWO, 100)
        told = await inference.until(lambda d: d.state_message.endswith("paused"))
        assert stands_at(1)(told)
        await control(call(), ControlRollout(NAME, RolloutVerb.RESUME))
        await inference.until(stands_at(2))
        with pytest.raises(EtagMismatch):
            await control(call(), ControlRollout(NAME, RolloutVerb.ABORT, etag="0"))
        await control(call(), ControlRollout(NAME, RolloutVerb.ABORT, reason="customers complain"))
        failed = await inference.until_state(DeploymentState.FAILED)
        assert failed.state_message == "the rollout was aborted by ada: customers complain"
        with pytest.raises(InvalidState):
            await control(call(), ControlRollout(NAME, RolloutVerb.PROMOTE))
        await inference.deployments.rollback(call(), RollbackDeployment(NAME))
        await inference.until(stands_at(1))
        faults.configure("inference.rollout.controlled=error*1")
        with pytest.raises(
            faults.InjectedFault
        ):  # the caller does not hear of it, and it is done all the same
            await control(call(), ControlRollout(NAME, RolloutVerb.PROMOTE))
        done = await inference.until_state(DeploymentState.ACTIVE)
        assert done.targets[0].serving == TWO
        assert place.gateway.gaps() == []
