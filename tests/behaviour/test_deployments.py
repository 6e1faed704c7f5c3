"""Deployments over their life: they rest and come back, share their traffic, are watched, and go back to what they were."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.types import (
    Autoscaling,
    Deployment,
    DeploymentChange,
    DeploymentState,
    LoggingPolicy,
    ReplicaState,
    RolloutPolicy,
    RolloutVerb,
    ShadowCounts,
    TrafficTarget,
)
from tests.framework.deployed import LABELS, ROWS, deployed, load, predictor
from tests.framework.stack import Processes
from tests.framework.waiting import eventually

SCALED = "type = 'inference.deployment.scaled'"
"""Filter of entries of the audit chain."""


async def test_a_deactivated_endpoint_runs_nothing_and_comes_back(processes: Processes) -> None:
    async with processes.admin() as admin, deployed(processes) as endpoint:
        await admin.deployments.deactivate(endpoint.name)
        resting = await admin.deployments.wait(endpoint.name, state=DeploymentState.INACTIVE, timeout=120)
        assert await admin.deployments.replicas(endpoint.name) == ()
        assert [status.model_version for status in resting.target_statuses] == [""]
        with pytest.raises(errors.DeploymentFailed, match="is INACTIVE"):
            await admin.deployments.wait(endpoint.name)
        with pytest.raises(errors.ModelyardError):
            await admin.predict(endpoint.name, {"input": ROWS[:1]})

        await admin.aliases.set(endpoint.name, {"champion": 2})  # followed while it rests
        changed = await admin.deployments.update(endpoint.name, replicas=2)
        assert changed.state is DeploymentState.INACTIVE
        await admin.deployments.activate(endpoint.name)
        active = await admin.deployments.wait(endpoint.name, timeout=120)
        assert [status.ready_replicas for status in active.target_statuses] == [2]

        async def second() -> bool:
            answer = await admin.predict(endpoint.name, {"input": ROWS[-1:]})
            return answer.model_version == 2

        await eventually(second)
        answer = await admin.predict(endpoint.name, {"input": ROWS[-1:]})
        assert np.array_equal(answer.output, endpoint.expected(2, ROWS[-1:]))
        await _tells_what_replicas_do(admin, endpoint.name)
        told = {"inference.deployment.activated", "inference.deployment.deactivated"}

        async def audited() -> bool:
            entries = await admin.audit.list(resource_id=active.id).collect()
            return told <= {entry.event.type for entry in entries}

        await eventually(audited)


async def test_a_deployment_shares_its_traffic_is_watched_and_rolled_back(processes: Processes) -> None:
    row = next(i for i in range(len(ROWS)) if LABELS[i] == 2)  # where the versions differ
    async with processes.admin() as admin, deployed(processes) as endpoint:
        name, rows = endpoint.name, ROWS[row : row + 1]
        assert endpoint.expected(1, rows) != endpoint.expected(2, rows)
        before = await admin.deployments.get(name)

        async def seen() -> list[Deployment]:
            states = []
            async for found in admin.deployments.watch(name):
                states.append(found)
                if len(found.target_statuses) == 2 and found.state is DeploymentState.ACTIVE:
                    break
            return states

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(seen())
            both = {f"{name}/1": 1, f"{name}/2": 9}
            await admin.deployments.update(
                name, targets=both, sticky_header="x-customer", reason="a first tenth"
            )
        reasons = {c.reason for found in watch.result() for c in found.conditions}
        assert "AS_WANTED" in reasons
        assert watch.result()[-1].revision == before.revision + 1
        for version in (1, 2):
            answer = await admin.predict(name, {"input": rows}, version=version)
            assert (answer.model_version, list(answer.output)) == (version, endpoint.expected(version, rows))
        with pytest.raises(errors.NotFound, match="version 3"):
            await admin.predict(name, {"input": rows}, version=3)

        await admin.deployments.rollback(name, reason="not yet")
        back = await admin.deployments.wait(name, timeout=120)
        assert (back.targets, back.sticky_header) == (before.targets, "")
        told = await admin.deployments.history(name).collect()
        assert [(r.change, r.reason) for r in told] == [
            (DeploymentChange.ROLLED_BACK, "not yet"),
            (DeploymentChange.UPDATED, "a first tenth"),
            (DeploymentChange.CREATED, ""),
        ]


async def _tells_what_replicas_do(admin: AsyncClient, name: str) -> None:
    """Two replicas of version 2 have answered: they counted it, said that they are ready, and write down what comes from now on."""
    found = await admin.deployments.statistics(name)
    assert [(one.model_version, one.measured) for one in found.replicas] == [(f"{name}/2", True)] * 2
    assert found.counters.success_count >= 1
    assert found.counters.success_count == sum(one.counters.success_count for one in found.replicas)
    lines = [line async for line in admin.deployments.logs(name)]
    ready = {line.replica for line in lines if line.message == "replica_ready"}
    assert ready == {one.replica for one in found.replicas}

    await admin.deployments.update(name, logging=LoggingPolicy(access_log=True))

    async def written() -> bool:
        await admin.predict(name, {"input": ROWS[:1]})
        return any([line.request_ids async for line in admin.deployments.logs(name, log="access")])

    await eventually(written)
    still = await admin.deployments.statistics(name)
    assert [one.replica for one in still.replicas] == [one.replica for one in found.replicas]


async def test_a_shadow_answers_nobody_and_its_differences_are_counted(processes: Processes) -> None:
    async with processes.admin() as admin, deployed(processes) as endpoint:
        name = endpoint.name
        differ = [
            endpoint.expected(1, ROWS[i : i + 1]) != endpoint.expected(2, ROWS[i : i + 1])
            for i in range(0, 150, 5)
        ]
        targets = [f"{name}@champion", TrafficTarget(f"{name}/2", shadow_percent=100)]
        await admin.deployments.update(name, targets=targets)
        await admin.deployments.wait(name, timeout=120)
        for i in range(0, 150, 5):
            answer = await admin.predict(name, {"input": ROWS[i : i + 1]})
            assert (answer.model_version, list(answer.output)) == (1, endpoint.expected(1, ROWS[i : i + 1]))

        wanted = ShadowCounts(mirrored=30, compared=30, different=sum(differ))
        assert 0 < sum(differ) < 30

        async def counted() -> bool:
            _, status = (await admin.deployments.get(name)).target_statuses
            assert (status.model_version, status.weight) == (f"{name}/2", 0)
            return status.shadow_counts == wanted

        await eventually(counted)
        await admin.deployments.rollback(name)
        back = await admin.deployments.wait(name, timeout=120)
        assert [target.shadow_percent for target in back.targets] == [0]


async def test_a_version_takes_over_in_steps_under_load(processes: Processes) -> None:
    """Judged by what the real Envoy counts; no prediction fails, and a caller can hold it and send it back."""
    policy = RolloutPolicy(steps=(30, 100), min_requests=20, max_error_percent=1)
    async with processes.admin() as admin, deployed(processes) as endpoint:
        name = endpoint.name
        await admin.deployments.update(name, rollout_policy=policy)
        async with load(predictor(admin, endpoint)) as seen:
            await admin.deployments.update(name, targets=f"{name}/2")
            await admin.deployments.wait(name, timeout=120)
            assert await seen.of_now(20) == {2}

            slow = RolloutPolicy(steps=(50, 100), min_requests=10**9)
            await admin.deployments.update(name, targets=f"{name}/1", rollout_policy=slow)
            await seen.more(20, version=1)
            halfway = await admin.deployments.get(name)
            assert (halfway.rollout.step, halfway.rollout.percent) == (1, 50)
            await admin.deployments.control_rollout(name, RolloutVerb.ABORT, reason="not now")
            with pytest.raises(errors.DeploymentFailed, match="aborted by .*: not now"):
                await admin.deployments.wait(name, timeout=120)
            assert await seen.of_now(20) == {2}
        assert seen.failures == []


async def test_replicas_follow_the_load_down_to_none_and_back(processes: Processes) -> None:
    """By what the real Envoy counts; none of the predictions fails, nor do those that come when nothing runs."""
    bounds = Autoscaling(
        max_replicas=2, target_in_flight=0.3, scale_down_delay=timedelta(seconds=0), scale_to_zero=True
    )
    async with processes.admin() as admin, deployed(processes) as endpoint:
        predict = predictor(admin, endpoint)
        name, found = endpoint.name, await admin.deployments.get(endpoint.name)

        async def until(count: int) -> None:
            async def so_many() -> bool:
                replicas = await admin.deployments.replicas(name)
                return [one.state for one in replicas] == [ReplicaState.READY] * count

            await eventually(so_many)

        await admin.deployments.update(name, autoscaling=bounds)
        async with load(predict, callers=8) as seen:
            await until(2)
            await seen.more(20)
        assert seen.failures == []
        await until(0)
        assert (await admin.deployments.get(name)).state is DeploymentState.ACTIVE
        assert await asyncio.gather(*(predict() for _ in range(8))) == [1] * 8

        async def told() -> bool:
            entries = await admin.audit.list(resource_id=found.id, filter=SCALED).collect()
            steps = [(e.event.data["before"]["replicas"], e.event.data["after"]["replicas"]) for e in entries]
            return {(1, 2), (2, 1), (1, 0), (0, 1)} <= set(steps)

        await eventually(told)
