"""kill -9 while predictions run: no prediction may notice, and what was killed comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard import LineageNode, errors
from modelyard.aio import AsyncClient
from modelyard_suite import plan
from modelyard_suite.supervisor import is_alive
from tests.framework.deployed import Deployed, deployed, deployed_for_module, load, predictor
from tests.framework.stack import Processes, short_folder
from tests.framework.waiting import eventually


@pytest.fixture(scope="module")
def endpoint(processes: Processes) -> Iterator[Deployed]:
    """A deployment for all stories after which it is as before."""
    with deployed_for_module(processes, replicas=2) as one:
        yield one


async def replica_pids(admin: AsyncClient, name: str) -> set[int]:
    return {
        replica.process_id
        for replica in await admin.deployments.replicas(name)
        if str(replica.state) == "READY"
    }


async def test_a_killed_replica_costs_no_prediction_and_is_started_again(
    processes: Processes, endpoint: Deployed
) -> None:
    async with processes.admin() as admin, load(predictor(admin, endpoint)) as seen:
        await seen.more(50)
        before = await replica_pids(admin, endpoint.name)
        assert len(before) == 2
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await seen.more(200)

        async def replaced() -> bool:
            now = await replica_pids(admin, endpoint.name)
            return len(now) == 2 and victim not in now

        await eventually(replaced, seconds=60)
        await seen.more(50)
    assert seen.failures == []


@pytest.mark.parametrize("service", ["catalog", "governance", "artifact", "inference", "gateway", "postgres"])
async def test_predictions_go_on_while_the_control_plane_is_killed(
    processes: Processes, endpoint: Deployed, service: str
) -> None:
    async with processes.admin() as admin, load(predictor(admin, endpoint)) as seen:
        await seen.more(50)
        before = processes.process(service)
        os.kill(before.pid, signal.SIGKILL)
        await seen.more(300)

        async def back() -> bool:
            now = processes.process(service)
            return now.pid != before.pid and is_alive(now)

        await eventually(back, seconds=60)
        await seen.more(50)
        assert seen.failures == []

        async def answers() -> bool:
            try:
                await admin.artifacts.digest_of(endpoint.name)
                await admin.deployments.get(endpoint.name)
                return (await admin.audit.verify()).valid
            except (errors.Unavailable, errors.DeadlineExceeded):
                return False

        await eventually(answers, seconds=60)


async def test_lineage_arrives_though_catalog_and_inference_are_killed(processes: Processes) -> None:
    async with processes.admin() as admin, deployed(processes) as endpoint:
        await admin.aliases.set(endpoint.name, {"champion": 2})
        async with load(predictor(admin, endpoint)) as seen:
            await seen.more(1, version=2)  # the traffic has shifted just now
            for service in ("catalog", "inference"):
                os.kill(processes.process(service).pid, signal.SIGKILL)
            await seen.more(20)
        assert seen.failures == []

        async def told() -> bool:
            try:
                found = await admin.lineage.upstream(LineageNode.deployment(endpoint.name), depth=1)
            except (errors.Unavailable, errors.InternalError, errors.DeadlineExceeded):
                return False
            return {edge.source.name for edge in found.edges} == {f"{endpoint.name}/1", f"{endpoint.name}/2"}

        await eventually(told, seconds=120)


async def test_a_killed_envoy_comes_back_and_serves_the_same_routes(
    processes: Processes, endpoint: Deployed
) -> None:
    async with processes.admin() as admin:
        predict = predictor(admin, endpoint)
        assert await predict() == 1
        os.kill(processes.process("envoy").pid, signal.SIGKILL)

        async def answers() -> bool:
            try:
                return await predict() == 1
            except (errors.Unavailable, errors.NotFound):
                return False

        await eventually(answers, seconds=60)


async def test_a_second_inference_service_waits_and_touches_nothing(
    processes: Processes, endpoint: Deployed, tmp_path: Path
) -> None:
    services = plan.stages(processes.home, plan.Options(listen=processes.target))[1]
    first = next(service for service in services if service.name == "inference")
    with short_folder() as folder:
        own = {
            "MODELYARD_LISTEN": f"unix:{folder}/socket",
            "MODELYARD_RUN_DIRECTORY": f"{folder}/run",
            "MODELYARD_CACHE_DIRECTORY": f"{folder}/cache",
        }
        log = tmp_path / "log"
        with log.open("wb") as output:
            second = await asyncio.create_subprocess_exec(
                *first.command, env={**first.environment, **own}, stdout=output, stderr=output
            )
        try:
            await eventually(lambda: b"waiting_for_other_process" in log.read_bytes())
            async with processes.admin() as admin:
                before = await replica_pids(admin, endpoint.name)
                async with load(predictor(admin, endpoint)) as seen:
                    await seen.more(300)
                assert seen.failures == []
                assert await replica_pids(admin, endpoint.name) == before
            assert list(folder.glob("run/replicas/*")) == []
            assert second.returncode is None
            second.terminate()
            assert await asyncio.wait_for(second.wait(), 30) == 0
        finally:
            if second.returncode is None:
                second.kill()
                await second.wait()
    assert "Traceback" not in log.read_text()
