"""Replicas of the new in the places of the old, when steps fail and the service dies between them, on real processes and a real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from modelyard_inference.commands import UpdateDeployment
from modelyard_inference.models import Deployment, DeploymentState
from modelyard_inference.route_table import RouteTable
from modelyard_inference.strategies import UpdateStrategy
from modelyard_kit import faults
from tests.faults.test_inference_faults import Counted
from tests.framework.inference import ACTIVATOR, Inference, Site, call, creation, site, spec

NAME = "prod.ml.iris"
ONE, TWO, BROKEN = (f"{NAME}/{number}" for number in (1, 2, 3))
SPARING = UpdateStrategy.RESOURCE_PRESERVING
STEPS = ("add_group", "unroute_replicas", "add_replicas", "admit_group", "shift", "end_group", "remove_group")


@pytest.fixture
async def place(fresh_database: Callable[[str], str]) -> AsyncIterator[Site]:
    async with site(fresh_database("modelyard_inference")) as made:
        for number in (1, 2):
            made.upstream.add(number)
        made.upstream.add(3, runtime="broken")
        yield made
    faults.configure("")


@asynccontextmanager
async def counting_processes(inference: Inference) -> AsyncIterator[list[int]]:
    """Give how many replica processes there are, looked at all the time in this block."""
    found: list[int] = []

    async def look() -> None:
        while True:
            found.append(len(await inference.launcher.list()))
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


def over(found: Deployment) -> bool:
    """Whether no exchange is under way any more."""
    return found.rollout is None or not found.rollout.exchange


def answering(table: RouteTable) -> int:
    """Return how many replicas get predictions in a table."""
    targets = (target for route in table.routes for target in route.targets if target.weight)
    return sum(address != ACTIVATOR for target in targets for address in target.addresses)


async def test_one_after_the_other_though_steps_fail_and_the_service_dies_between(place: Site) -> None:
    counting = Counted()
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(replicas=2, update_strategy=SPARING))
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.until_quiet()
        first = len(place.gateway.tables)
        faults.configure(
            ";".join(f"inference.{when}_{step}=error*1" for step in STEPS for when in ("before", "after"))
        )
        async with counting_processes(inference) as processes:
            with counting:
                await inference.deployments.update(call(), UpdateDeployment(NAME, "", targets=(spec(TWO),)))
                await inference.until(lambda _: place.gateway.weights().get(TWO, 0) > 0)
        assert max(processes) == 2
    async with place.life() as inference, counting_processes(inference) as processes:
        with counting:
            done = await inference.until(lambda d: d.ready == {TWO: 2} and over(d))
            await inference.until_quiet()
        assert max(processes) == 2
        assert done.targets[0].serving == TWO
    assert counting.reached >= {f"inference.{when}_{step}" for step in STEPS for when in ("before", "after")}
    assert min(map(answering, place.gateway.tables[first:])) == 1
    assert place.gateway.gaps() == []


async def test_predictions_are_held_while_the_only_one_is_exchanged(place: Site) -> None:
    """Also on the way back from a version that cannot be loaded."""
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(update_strategy=SPARING))
        await inference.until_state(DeploymentState.ACTIVE)
        for wanted, answers in ((TWO, TWO), (BROKEN, TWO)):
            first = len(place.gateway.tables)
            async with counting_processes(inference) as processes:
                update = UpdateDeployment(NAME, "", targets=(spec(wanted),))
                await inference.deployments.update(call(), update)
                await inference.until(lambda _, since=first: len(place.gateway.tables) > since)  # type: ignore[misc]
                done = await inference.until(lambda d: d.ready == {answers: 1} and over(d))  # noqa: B023
                await inference.until_quiet()
            assert max(processes) == 1
            held = [
                t for table in place.gateway.tables[first:] for r in table.routes for t in r.targets if t.held
            ]
            assert {target.version for target in held if target.weight} >= {wanted}
        assert done.targets[0].serving == TWO
        failed = await inference.until_state(DeploymentState.FAILED)
        assert failed.state_message.startswith(f"{BROKEN} was taken back, it could not be started: ")
        assert f"tiny replica of {BROKEN}" in failed.state_message
    assert place.gateway.gaps() == []
