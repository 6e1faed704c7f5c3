"""The agent beside a real Envoy: follows the services, survives them, confirms what Envoy serves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from modelyard.api.governance.v1.governance_service_pb2 import GetJwksRequest, ListGrantsRequest
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard.api.inference.v1.inference_service_pb2 import ConfirmRoutesRequest
from modelyard_gateway import admin
from modelyard_gateway.envoy_metrics import EnvoyCollector
from modelyard_kit.auth import Principal
from modelyard_suite.plan import free_port
from tests.conformance.gateway_control_plane import ControlPlane, allow
from tests.conformance.gateway_stack import (
    ADA,
    BOB,
    GatewayStack,
    gateway_stack,
    route,
    start_program,
)
from tests.conformance.whole_gateway import IRIS, Gateway, whole_gateway
from tests.framework.grafana import asked_for, told
from tests.framework.tokens import Issuer
from tests.framework.waiting import eventually


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with whole_gateway(keys_interval_seconds=0.2) as made:
        yield made


async def code_of(call: object) -> grpc.StatusCode:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until(gateway: Gateway, code: grpc.StatusCode, principal: Principal = ADA) -> None:
    async with gateway.stack.channel() as channel:

        async def answers() -> bool:
            return await code_of(gateway.stack.infer_on(channel, IRIS, principal)) is code

        await eventually(answers)


async def test_grants_become_rights_and_are_taken_back(gateway: Gateway) -> None:
    assert await code_of(gateway.stack.infer(IRIS, BOB)) is grpc.StatusCode.PERMISSION_DENIED
    await gateway.plane.governance.grants.set({ADA.id: allow(IRIS), BOB.id: allow(IRIS)})
    await until(gateway, grpc.StatusCode.OK, BOB)
    await gateway.plane.governance.grants.set({ADA.id: allow(IRIS), BOB.id: []})
    await until(gateway, grpc.StatusCode.PERMISSION_DENIED, BOB)
    assert await code_of(gateway.stack.infer(IRIS, ADA)) is grpc.StatusCode.OK


async def test_members_of_groups_may_predict_until_they_are_disabled(gateway: Gateway) -> None:
    governance = gateway.plane.governance
    governance.groups = {BOB.id: ("team",), "team": ("org",)}
    held = {ADA.id: allow(IRIS), BOB.id: [], "team": [], "org": allow(IRIS)}
    await governance.grants.set(held)
    await until(gateway, grpc.StatusCode.OK, BOB)
    governance.disabled = {BOB.id}
    await governance.grants.set(held)
    await until(gateway, grpc.StatusCode.PERMISSION_DENIED, BOB)
    assert await code_of(gateway.stack.infer(IRIS, ADA)) is grpc.StatusCode.OK


async def test_a_group_that_nothing_leads_to_any_more_is_removed_without_a_further_change(
    gateway: Gateway,
) -> None:
    inference, admin = gateway.plane.inference, gateway.stack.admin
    (before,) = inference.table.value.routes
    (target,) = before.targets
    version = await inference.publish(replace(before, targets=(replace(target, group="g-next"),)))
    await inference.until_confirmed(version, ["g-next"])

    async def alone() -> bool:
        return (await admin.hosts()).keys() == {"g-next"}

    await eventually(alone)


async def test_figures_are_reported_of_what_is_measured_and_only_grow(gateway: Gateway) -> None:
    """Also when Envoy counts anew, because it was restarted or the replicas of the group are others."""
    (one,) = gateway.stack._replicas
    two = await gateway.stack.replica("two")
    inference = gateway.plane.inference
    assert not inference.confirmed.value.figures  # what is not measured is not reported

    async def counted(answered: int, failed: int) -> None:
        async with asyncio.timeout(60):
            async for confirmation in inference.confirmed.follow():
                for figures in confirmation.figures:
                    timed = sum(bucket.count for bucket in figures.latencies)
                    if (figures.group, figures.answered, figures.failed, timed) == (
                        "g1", answered, failed, answered + failed,
                    ):  # fmt: skip
                        return

    async def publish(*addresses: str) -> None:
        made = replace(route(IRIS, ("g1", 1, addresses)), measured=True)
        await inference.until_confirmed(await inference.publish(made), ["g1"])

    await publish(one.address)
    for _ in range(5):
        await gateway.stack.infer(IRIS)
    one.fail_with = grpc.StatusCode.INTERNAL
    assert await code_of(gateway.stack.infer(IRIS)) is grpc.StatusCode.INTERNAL
    one.fail_with = grpc.StatusCode.INVALID_ARGUMENT  # a mistake of the caller is an answer
    assert await code_of(gateway.stack.infer(IRIS)) is grpc.StatusCode.INVALID_ARGUMENT
    await counted(6, 1)
    one.fail_with = None
    await publish(one.address, two.address)
    for _ in range(2):
        await gateway.stack.infer(IRIS)
    await counted(8, 1)
    gateway.stack.kill_envoy()
    gateway.stack.start_envoy()
    await gateway.stack.wait_for_admin()
    await gateway.stack.healthy("g1")
    gateway.stack.port = await gateway.stack.admin.listen_port()
    await gateway.stack.infer(IRIS)
    await counted(9, 1)
    one.delay = two.delay = 60.0
    waiting = asyncio.create_task(gateway.stack.infer(IRIS))
    async with asyncio.timeout(60):
        async for confirmation in inference.confirmed.follow():
            if any(figures.in_flight > 0 for figures in confirmation.figures):
                break
    waiting.cancel()


async def test_predictions_go_on_without_the_services(gateway: Gateway) -> None:
    await gateway.plane.stop()
    for _ in range(10):
        await gateway.stack.infer(IRIS)
        await asyncio.sleep(0.05)
    await gateway.plane.start()
    second = await gateway.stack.replica("two")
    await gateway.deploy("g2", second.address)
    assert (await gateway.stack.infer(IRIS)).model_version == "two"


async def test_a_new_agent_leaves_what_is_served_until_it_knows_better(gateway: Gateway) -> None:
    await gateway.plane.stop("inference")
    gateway.plane.inference.confirmed.value.Clear()
    async with gateway.agent():
        await asyncio.sleep(1.0)
        await gateway.stack.infer(IRIS)
    await gateway.plane.start("inference")


async def test_a_change_of_keys(gateway: Gateway) -> None:
    other = Issuer("next")
    gateway.plane.governance.issuers = [other]
    await until(gateway, grpc.StatusCode.UNAUTHENTICATED)
    gateway.stack.issuer = other
    await until(gateway, grpc.StatusCode.OK)


async def test_confirmations_tell_of_a_dead_envoy(gateway: Gateway) -> None:
    gateway.stack.kill_envoy()
    confirmation = await gateway.plane.inference.until_confirmed(0)
    assert "Envoy does not answer" in confirmation.problem


async def test_an_envoy_without_time_to_answer_keeps_what_it_confirmed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = gateway.plane.inference
    before = inference.confirmed.value
    monkeypatch.setattr(admin, "_TIMEOUT_SECONDS", 0.2)
    os.kill(gateway.stack.process_id, signal.SIGSTOP)
    busy = await said(gateway, lambda problem: "no answer" in problem)
    assert (busy.version, list(busy.healthy_groups)) == (before.version, ["g1"])
    monkeypatch.undo()
    os.kill(gateway.stack.process_id, signal.SIGCONT)
    assert (await said(gateway, lambda problem: not problem)).version == before.version


async def said(gateway: Gateway, wanted: Callable[[str], bool]) -> ConfirmRoutesRequest:
    """Return the next report whose problem is wanted."""
    async with asyncio.timeout(60):
        async for confirmation in gateway.plane.inference.confirmed.follow():
            if wanted(confirmation.problem):
                return cast("ConfirmRoutesRequest", confirmation)
    raise AssertionError


async def test_services_answer_through_the_gateway(gateway: Gateway) -> None:
    async with gateway.stack.channel() as channel:
        governance, catalog = GovernanceServiceStub(channel), CatalogServiceStub(channel)
        assert (await governance.GetJwks(GetJwksRequest(), timeout=60)).issuer == "modelyard"
        assert (
            await code_of(governance.ListGrants(ListGrantsRequest(), timeout=60))
            is grpc.StatusCode.UNAUTHENTICATED
        )
        metadata = [gateway.stack.authorization()]
        request = catalog_service_pb2.GetCatalogRequest(name="prod")
        answer = await catalog.GetCatalog(request, metadata=metadata, timeout=60)
        assert answer.catalog.name == "prod"
        assert gateway.plane.catalog.metadata["authorization"] == metadata[0][1]
        await gateway.plane.stop("catalog")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await catalog.GetCatalog(request, metadata=metadata, timeout=60)
        assert (caught.value.code(), "catalog" in str(caught.value.details())) == (
            grpc.StatusCode.UNAVAILABLE,
            True,
        )
        await gateway.plane.start("catalog")


async def test_health(gateway: Gateway) -> None:
    async with gateway.stack.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_unmodified_tritonclient(gateway: Gateway) -> None:
    await asyncio.to_thread(_triton, gateway.stack)


def _triton(stack: GatewayStack) -> None:
    from tritonclient.grpc import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    client = InferenceServerClient(f"127.0.0.1:{stack.port}")
    headers = dict([stack.authorization()])
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata().name == "modelyard"
        assert client.is_model_ready(IRIS, headers=headers)
        assert client.get_model_metadata(IRIS, headers=headers).versions == ["one"]
        counted = client.get_inference_statistics(IRIS, headers=headers).model_stats
        assert [(one.version, one.inference_count) for one in counted] == [("one", 7)]
        with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
            client.get_inference_statistics(IRIS, headers=dict([stack.authorization(BOB)]))
        values = np.arange(4, dtype=np.float32).reshape(1, 4)
        tensor = InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(values)
        answer = client.infer(IRIS, [tensor], headers=headers)
        assert (answer.as_numpy("y") == values).all()
    finally:
        client.close()


async def test_prometheus_gets_to_know_what_envoy_counts(gateway: Gateway) -> None:
    stack = gateway.stack
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EnvoyCollector(stack.admin, lambda: gateway.working.applied))

    async def scraped() -> dict[tuple[str, str], float]:
        text = (await asyncio.to_thread(generate_latest, registry)).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, sample.labels.get("model", "")): sample.value for sample in samples}

    for _ in range(3):
        await stack.infer(IRIS)
    found = await scraped()
    assert found["modelyard_gateway_envoy_up", ""] == 1
    assert found["envoy_cluster_upstream_rq_total", IRIS] == 3
    assert found["envoy_cluster_membership_healthy", IRIS] == 1
    assert found["envoy_http_downstream_rq_total", ""] >= 3
    assert found["envoy_server_memory_allocated", ""] > 0
    assert found["modelyard_gateway_envoy_series_left_out", ""] == 0
    assert len({name for name, _ in found}) < 60
    names = told((await asyncio.to_thread(generate_latest, registry)).decode())
    asked = {name: labels for name, labels in asked_for().items() if name.startswith("envoy_")}
    missing = {name: labels - names.get(name, set()) for name, labels in asked.items()}
    # Envoy tells only what has happened.
    assert missing.pop("envoy_cluster_upstream_rq_retry")
    assert missing
    assert not any(missing.values()), missing
    stack.kill_envoy()
    assert await scraped() == {("modelyard_gateway_envoy_up", ""): 0}


async def test_the_programs_start_in_any_order_and_stop(tmp_path: Path) -> None:
    """Envoy first, then the agent, both as the suite runs them."""
    async with gateway_stack() as stack:
        stack.kill_envoy()
        plane = ControlPlane(stack.folder, stack.issuer)
        await plane.start()
        replica = await stack.replica("one")
        await plane.governance.grants.set({ADA.id: allow(IRIS)})
        settings = {
            "listen": "127.0.0.1:0",
            "envoy_directory": str(stack.folder / "e2"),
            "token_file": str(stack.settings.token_file),
            "metrics_listen": f"127.0.0.1:{free_port()}",
            **{f"{name}_address": address for name, address in stack.settings.services.items()},
        }
        environment = os.environ | {f"MODELYARD_{name.upper()}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "modelyard_gateway"]
        with (tmp_path / "log").open("wb") as log:
            programs = []
            for verb in (["envoy"], ["agent"]):
                programs.append(start_program([*command, *verb], env=environment, stdout=log, stderr=log))
                await asyncio.sleep(0.3)
        try:
            version = await plane.inference.publish(route(IRIS, ("g1", 1, [replica.address])))
            await plane.inference.until_confirmed(version, ["g1"])
            assert (stack.folder / "e2").stat().st_mode & 0o777 == 0o700
            url = f"http://{settings['metrics_listen']}/metrics"
            with await asyncio.to_thread(urllib.request.urlopen, url, timeout=20) as answer:
                lines = answer.read().decode().splitlines()
            assert "modelyard_gateway_envoy_up 1.0" in lines
            assert any(
                line.startswith("envoy_cluster_membership_healthy{") and f'model="{IRIS}"' in line
                for line in lines
            )
        finally:
            for program in programs:
                program.send_signal(signal.SIGTERM)
            codes = [await asyncio.to_thread(program.wait, 20) for program in programs]
            await plane.stop()
        assert codes == [0, 0], (tmp_path / "log").read_text()


async def test_envoy_says_that_its_port_is_taken(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    names = ("catalog", "artifact", "governance", "inference")
    environment = os.environ | {f"MODELYARD_{name.upper()}_ADDRESS": "127.0.0.1:1" for name in names}
    environment |= {"MODELYARD_LISTEN": f"127.0.0.1:{port}", "MODELYARD_ENVOY_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "-m", "modelyard_gateway", "envoy"]
    async with taken:
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert "MODELYARD_LISTEN" in done.stderr
