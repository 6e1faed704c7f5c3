"""What a replica counts about real predictions, asked for as the inference service does, and scraped as Prometheus does."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
from prometheus_client import CollectorRegistry, generate_latest
from tritonclient.utils import InferenceServerException

from modelyard.api.oip.v2 import rest_inference_pb2 as rest_pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard.api.oip.v2.rest_inference_pb2_grpc import RestInferenceServiceStub
from modelyard_inference import runtimes
from modelyard_inference.models import GroupState
from modelyard_inference.ports import Measured
from modelyard_inference.probe import ReplicaProber
from modelyard_inference.replica.app import Replica
from modelyard_inference.statistics import ReplicaFigures
from tests.conformance import odd_runtime
from tests.conformance.replicas import DEPLOYMENT, iris_config
from tests.conformance.test_replica_oip import channel_to, request_of, rest_input
from tests.framework.grafana import asked_for, told
from tests.framework.waiting import eventually
from tests.unit.inference.test_planner import deployment, group, replica
from tests.unit.inference.test_scrape import Registered


class Site:
    """A replica of the odd runtime, and who asks it."""

    def __init__(self, replica: Replica, folder: Path) -> None:
        self.replica, self.folder, self.prober = replica, folder, ReplicaProber()

    async def statistics(self) -> Measured:
        found = await self.prober.statistics(self.replica.config.listen)
        assert found is not None
        return found


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setitem(runtimes.RUNTIMES, odd_runtime.NAME, odd_runtime.MODULE)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="my") as sockets:
        config = iris_config(
            tmp_path,
            Path(sockets) / "s",
            runtime=odd_runtime.NAME,
            signature=odd_runtime.SIGNATURE,
            max_queue_rows=10,
        )
        made = Site(Replica(config), tmp_path)
        await made.replica.start()
        yield made
        (tmp_path / "release").touch()
        await made.prober.close()
        await made.replica.stop()


def picky(*values: float, method: str = "picky") -> Any:
    return request_of(("x", "FP32", np.array(values, np.float32)), method=method)


async def test_predictions_are_counted_by_what_came_of_them(site: Site) -> None:
    before = await site.statistics()
    assert (before.counters.success, before.counters.inferences, before.counters.executions) == (0, 0, 0)
    async with channel_to(site.replica) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for size in (1, 2, 3):
            await stub.ModelInfer(picky(*range(size)))
        for bad in (picky(-1), picky(13), picky(1, method="none")):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ModelInfer(bad)
        request = rest_pb.InferRequest(model_name=DEPLOYMENT)
        body = {"parameters": {"method": "picky"}, "inputs": [rest_input("x", "FP32", [1], [5.0])]}
        request.body.data = json.dumps(body).encode()
        await RestInferenceServiceStub(channel).Infer(request)
        counted = (await site.statistics()).counters
    assert (counted.success, counted.inferences, counted.executions) == (4, 7, 4)
    assert counted.failures == {"BACKEND": 1, "OTHER": 2, "REJECTED": 0, "CANCELED": 0}
    assert sum(counted.latencies) == 4
    assert len(counted.latencies) == len(counted.bounds) + 1
    parts = (counted.queue_ns, counted.input_ns, counted.infer_ns, counted.output_ns)
    assert min(parts) > 0
    assert sum(parts) <= counted.request_ns


async def test_what_waits_is_told_and_who_is_gone_or_too_many_is_counted(site: Site) -> None:
    async with channel_to(site.replica) as channel:
        stub = GRPCInferenceServiceStub(channel)
        running = stub.ModelInfer(picky(1, method="wait"))
        await eventually((site.folder / "started").exists)
        waiting = [stub.ModelInfer(picky(*range(5), method="wait")) for _ in range(2)]

        async def queued() -> bool:
            found = await site.statistics()
            return (found.in_flight, found.pending) == (3, 2)

        await eventually(queued)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ModelInfer(picky(0))
        waiting[0].cancel()

        async def left() -> bool:
            return (await site.statistics()).counters.failures["CANCELED"] == 1

        await eventually(left)
        (site.folder / "release").touch()
        await asyncio.gather(running, waiting[1])
    found = await site.statistics()
    assert found.counters.failures == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}
    assert (found.in_flight, found.pending, found.counters.success) == (0, 0, 2)
    assert found.memory_bytes > 0


async def test_figures_for_tritons_client(site: Site) -> None:
    def ask(name: str = DEPLOYMENT, version: str = "") -> Any:
        with tritonclient.grpc.InferenceServerClient(site.replica.config.listen) as client:
            return client.get_inference_statistics(name, version)

    (before,) = (await asyncio.to_thread(ask)).model_stats
    assert (before.name, before.version) == (DEPLOYMENT, str(site.replica.config.version))
    assert (before.last_inference, before.inference_count, before.inference_stats.success.count) == (0, 0, 0)
    begun = time.time()
    async with channel_to(site.replica) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for size in (1, 2, 3):
            await stub.ModelInfer(picky(*range(size)))
        for bad in (picky(-1), picky(13)):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ModelInfer(bad)
    (after,) = (await asyncio.to_thread(ask, version=before.version)).model_stats
    counted = (await site.statistics()).counters
    assert (after.inference_count, after.execution_count) == (6, 3)
    assert begun - 1 < after.last_inference / 1000 < time.time() + 1
    parts = after.inference_stats
    assert (parts.success.count, parts.success.ns) == (3, counted.request_ns)
    assert (parts.fail.count, parts.queue.count, parts.cache_hit.count) == (2, 3, 0)
    assert parts.fail.ns > 0
    assert [parts.queue.ns, parts.compute_input.ns, parts.compute_infer.ns, parts.compute_output.ns] == [
        counted.queue_ns, counted.input_ns, counted.infer_ns, counted.output_ns,
    ]  # fmt: skip
    assert after.memory_usage[0].byte_size > 0
    for name, version in (("prod.ml.other", ""), (DEPLOYMENT, "9")):
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            await asyncio.to_thread(ask, name, version)
    async with channel_to(site.replica) as channel:
        rest = RestInferenceServiceStub(channel)
        answer = await rest.Statistics(rest_pb.StatisticsRequest(model_name=DEPLOYMENT))
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await rest.Statistics(rest_pb.StatisticsRequest(model_name=DEPLOYMENT, model_version="9"))
    (shown,) = json.loads(answer.body.data)["model_stats"]
    assert (shown["name"], shown["version"]) == (after.name, after.version)
    assert (shown["inference_count"], shown["execution_count"], shown["last_inference"]) == (
        after.inference_count, after.execution_count, pytest.approx(after.last_inference, abs=2),
    )  # fmt: skip
    for part, counted_part in shown["inference_stats"].items():
        assert counted_part == {"count": getattr(parts, part).count, "ns": getattr(parts, part).ns}
    assert shown["memory_usage"][0]["type"] == "CPU"


async def test_who_does_not_answer_has_no_figures(site: Site) -> None:
    await site.replica.stop()
    assert await site.prober.statistics(site.replica.config.listen) is None


async def test_the_dashboard_asks_for_what_is_told(site: Site) -> None:
    async with channel_to(site.replica) as channel:
        await GRPCInferenceServiceStub(channel).ModelInfer(picky(0))
    figures = ReplicaFigures(deployment(), replica(1), group(3, GroupState.SERVING), await site.statistics())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Registered([figures]))
    found = told(generate_latest(registry).decode())
    asked = {
        n: labels
        for n, labels in asked_for().items()
        if n.startswith(("nv_", "modelyard_replica", "modelyard_prediction_duration"))
    }
    missing = {name: labels - found.get(name, set()) for name, labels in asked.items()}
    assert len(missing) > 10
    assert not any(missing.values()), missing
