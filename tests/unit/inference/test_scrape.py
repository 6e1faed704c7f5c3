"""What Prometheus gets to see of replicas."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from modelyard_inference.models import GroupState
from modelyard_inference.ports import Counters, Measured
from modelyard_inference.scrape import METRICS, ReplicaCollector, families
from modelyard_inference.statistics import ReplicaFigures
from tests.unit.inference.test_planner import deployment, group, replica

COUNTERS = Counters(
    7, {"BACKEND": 2, "OTHER": 0}, 70, 5, 8_000_000, 3_999, 2_000, 6_000_000, 1_000, (0.1, 1.0), (4, 2, 1)
)


def figures() -> list[ReplicaFigures]:
    first = ReplicaFigures(
        deployment(), replica(1), group(3, GroupState.SERVING), Measured(COUNTERS, 4, 2, 1_000_000)
    )
    silent = replace(first, replica=replica(1, ordinal=1, restarts=6), measured=None)
    return [first, silent]


class Registered:
    """Figures as a registry takes them."""

    def __init__(self, found: Sequence[ReplicaFigures]) -> None:
        self.found = found

    def collect(self) -> Any:
        return families(self.found)


def registry(found: Sequence[ReplicaFigures]) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(Registered(found))
    return made


def test_series_are_named_as_triton_names_them() -> None:
    text = generate_latest(registry(figures())).decode()
    labels = f'model="{deployment().name}",replica="r1.0",version="3"'
    for line in (
        f"nv_inference_request_success{{{labels}}} 7.0",
        f"nv_inference_count{{{labels}}} 70.0",
        f"nv_inference_exec_count{{{labels}}} 5.0",
        f"nv_inference_request_duration_us{{{labels}}} 8000.0",
        f"nv_inference_queue_duration_us{{{labels}}} 3.0",
        f"nv_inference_compute_input_duration_us{{{labels}}} 2.0",
        f"nv_inference_compute_infer_duration_us{{{labels}}} 6000.0",
        f"nv_inference_compute_output_duration_us{{{labels}}} 1.0",
        f"nv_inference_pending_request_count{{{labels}}} 2.0",
        f"modelyard_replica_in_flight{{{labels}}} 4.0",
        f"modelyard_replica_memory_bytes{{{labels}}} 1e+06",
        f"modelyard_replica_up{{{labels}}} 1.0",
        f"modelyard_replica_restarts{{{labels}}} 0.0",
    ):
        assert line in text.splitlines()
    failed = 'nv_inference_request_failure{model="%s",reason="BACKEND",replica="r1.0",version="3"} 2.0'
    assert failed % deployment().name in text
    silent = [line for line in text.splitlines() if 'replica="r1.1"' in line]
    assert [line.rpartition(" ")[2] for line in silent] == ["0.0", "6.0"]


def test_both_formats_are_well_formed_and_complete() -> None:
    both = registry(figures())
    for found in (
        parse(generate_latest(both).decode()),
        parse_openmetrics(generate_openmetrics(both).decode()),  # type: ignore[no-untyped-call]
    ):
        told = {family.name: family for family in found}
        assert set(told) == METRICS
        latency = {
            sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value
            for sample in told["modelyard_prediction_duration_seconds"].samples
        }
        assert latency == {"0.1": 4, "1.0": 6, "+Inf": 7, "count": 7, "sum": 0.008}


def test_without_replicas_there_are_names_only() -> None:
    assert {family.name for family in families([])} == METRICS
    assert not [sample for family in families([]) for sample in family.samples]


@pytest.mark.parametrize("problem", [None, OSError("no database")])
async def test_a_scrape_asks_and_an_outage_leaves_the_rest(problem: OSError | None) -> None:
    class Asked:
        async def everything(self) -> Sequence[ReplicaFigures]:
            assert threading.current_thread() is threading.main_thread()
            if problem:
                raise problem
            return figures()

    collector = ReplicaCollector(Asked(), asyncio.get_running_loop())  # type: ignore[arg-type]
    assert collector.describe() == ()
    found = await asyncio.to_thread(lambda: list(collector.collect()))
    assert {family.name for family in found} == (set() if problem else METRICS)


def test_counters_add_up() -> None:
    assert Counters() + COUNTERS == COUNTERS
    double = COUNTERS + COUNTERS
    assert (double.success, double.failures, double.latencies) == (14, {"BACKEND": 4}, (8, 4, 2))
    assert (double.request_ns, double.queue_ns, double.infer_ns) == (16_000_000, 7_998, 12_000_000)
    other = replace(COUNTERS, bounds=(0.5,), latencies=(1, 1))
    assert (COUNTERS + other).latencies == COUNTERS.latencies  # of another release
