"""Replicas that follow what is in flight, when steps fail and the service dies between them, on real processes and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import tables
from modelyard_inference.canary import WATCH
from modelyard_inference.commands import UpdateDeployment
from modelyard_inference.models import DeploymentState
from modelyard_inference.scaling import FIXED, Autoscaling
from modelyard_kit import faults
from tests.faults.test_inference_faults import Counted
from tests.framework.inference import ACTIVATOR, SERVICE, Inference, Site, call, creation, site, spec

NAME = "prod.ml.iris"
ONE, TWO = (f"{NAME}/{number}" for number in (1, 2))
STEP = ("inference.before_scale_group", "inference.after_scale_group")


@pytest.fixture
async def place(fresh_database: Callable[[str], str]) -> AsyncIterator[Site]:
    async with site(fresh_database("modelyard_inference")) as made:
        for number in (1, 2):
            made.upstream.add(number)
        yield made
    faults.configure("")


async def scaled(inference: Inference) -> list[tuple[str, int, int, str]]:
    """Return the version, the replicas before and after, and the reason of each event that tells of another number."""
    outbox = tables.metadata.tables["outbox"].c
    query = sa.select(outbox.data, outbox.actor_name).where(outbox.type == "inference.deployment.scaled")

    async def work(connection: AsyncConnection) -> list[tuple[str, int, int, str]]:
        rows = (await connection.execute(query.order_by(outbox.position))).all()
        assert {name for _, name in rows} <= {SERVICE.name}
        return [
            (d["model_version"], d["before"]["replicas"], d["after"]["replicas"], d["reason"])
            for d, _ in rows
        ]

    return await inference.db.read(work)


async def test_replicas_follow_what_is_in_flight(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """More, in another life a new version with as many, fewer, and as the deployment says when that is turned off."""
    # The new version is not watched any longer, for which gateways would have to count too.
    monkeypatch.setattr("modelyard_inference.planner.watch.WATCH", replace(WATCH, pause_ms=0))
    counting, policy = Counted(), Autoscaling(1, 3, 2.0, scale_down_delay_ms=0)
    async with place.life() as inference:
        faults.configure(";".join(f"{point}=error*1" for point in STEP))
        with counting:
            await inference.deployments.create(call(), creation(autoscaling=policy))
            await inference.until_state(DeploymentState.ACTIVE)
            assert place.gateway.table.routes[0].measured
            place.gateway.in_flight = {ONE: 100.0, TWO: 6.0}
            place.gateway.confirm(inference.routes)
            await inference.until(lambda d: d.ready == {ONE: 3})
        assert counting.reached >= set(STEP)
    async with place.life() as inference:
        await inference.deployments.update(call(), UpdateDeployment(NAME, "", targets=(spec(TWO),)))
        await inference.until(lambda d: d.targets[0].serving == TWO and d.ready == {TWO: 3})
        await inference.until_quiet()
        place.gateway.in_flight = {TWO: 0.5}
        place.gateway.confirm(inference.routes)
        await inference.until(lambda d: d.ready == {TWO: 1})
        off = UpdateDeployment(NAME, "", replicas=2, autoscaling=FIXED)
        await inference.deployments.update(call(), off)
        await inference.until(lambda d: d.ready == {TWO: 2} and d.state is DeploymentState.ACTIVE)
        assert not place.gateway.table.routes[0].measured
        assert await scaled(inference) == [  # though each decision failed once, before and after it was kept
            (ONE, 1, 2, "IN_FLIGHT"),
            (ONE, 2, 3, "IN_FLIGHT"),
            (TWO, 3, 1, "IN_FLIGHT"),
        ]
    assert place.gateway.gaps() == []


async def test_what_nobody_asks_sleeps_and_is_woken(place: Site) -> None:
    """While it sleeps, its route is there and leads to what holds predictions."""
    async with place.life() as inference:
        sleepy = Autoscaling(0, 2, 2.0, scale_down_delay_ms=0)
        await inference.deployments.create(call(), creation(autoscaling=sleepy))
        await inference.until_state(DeploymentState.ACTIVE)
        place.gateway.in_flight = {ONE: 0.0}
        place.gateway.confirm(inference.routes)
        await inference.until_replicas(0)
        (target,) = place.gateway.table.routes[0].targets
        assert (target.held, target.addresses, target.weight) == (True, (ACTIVATOR,), 1)
        assert (await inference.get()).state is DeploymentState.ACTIVE
        place.gateway.in_flight = {ONE: 0.2}
        place.gateway.confirm(inference.routes)
        await inference.until(lambda d: d.ready == {ONE: 1})
        (address,) = await inference.routes.replicas_of(target.group)
        assert address != ACTIVATOR
        assert await scaled(inference) == [(ONE, 1, 0, "IDLE"), (ONE, 0, 1, "FIRST_REQUEST")]
    assert place.gateway.gaps() == []
