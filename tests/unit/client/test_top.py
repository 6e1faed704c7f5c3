"""Rates and percentiles between two looks, and the table that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner, Result

from modelyard.api.inference.v1 import deployment_pb2, statistics_pb2
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.cli import app
from modelyard.cli._rates import Row, percentile, rows
from modelyard.types import (
    DeploymentState,
    DeploymentStatistics,
    InferenceCounters,
    ReplicaState,
    ReplicaStatistics,
)

from .fake import Fake
from .test_cli import connected

__all__ = ["connected"]

NAME = "prod.ml.iris"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
BOUNDS = (0.001, 0.01, 0.1)


def counters(
    answered: int, failed: int = 0, gone: int = 0, latencies: tuple[int, ...] = ()
) -> InferenceCounters:
    return InferenceCounters(
        success_count=answered,
        failure_counts={"BACKEND": failed, "CANCELED": gone},
        latency_bounds=BOUNDS,
        latency_counts=latencies or (answered, 0, 0, 0),
    )


def replica(name: str, found: InferenceCounters | None, **more: Any) -> ReplicaStatistics:
    told = {"in_flight": 3, "pending": 1, "memory_bytes": 2**20} if found else {}
    return ReplicaStatistics(
        replica=name,
        model_version=f"{NAME}/1",
        state=ReplicaState.READY,
        measured=found is not None,
        counters=found or InferenceCounters(),
        **{**told, **more},
    )


def look(second: float, *replicas: ReplicaStatistics) -> DeploymentStatistics:
    time = NOON + timedelta(seconds=second)
    return DeploymentStatistics(deployment=NAME, state=DeploymentState.ACTIVE, time=time, replicas=replicas)


def rates(row: Row) -> tuple[float | None, float | None]:
    return row.predictions_per_second, row.errors_per_second


@pytest.mark.parametrize(
    ("share", "counts", "seconds"),
    [
        (0.5, (0, 0, 0, 0), None),
        (0.5, (10, 0, 0, 0), 0.0005),
        (1.0, (10, 0, 0, 0), 0.001),
        (0.5, (0, 10, 0, 0), 0.0055),
        (0.5, (5, 0, 5, 0), 0.001),
        (0.95, (5, 0, 5, 0), 0.01 + 0.09 * 0.9),
        (0.95, (1, 0, 0, 9), 0.1),
    ],
)
def test_percentiles_lie_within_their_bucket(
    share: float, counts: tuple[int, ...], seconds: float | None
) -> None:
    found = percentile(share, BOUNDS, counts)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_rates_are_those_between_two_looks() -> None:
    before = look(0, replica("a", counters(100, 10, 5)), replica("b", counters(40)))
    now = look(
        2,
        replica("a", counters(120, 14, 50)),
        replica("b", counters(44, latencies=(40, 4, 0, 0)), restarts=2),
    )
    total, first, second = rows(before, now)
    assert [rates(row) for row in (total, first, second)] == [(12, 2), (10, 2), (2, 0)]
    assert (total.replica, first.replica, total.model_version, total.state) == (
        "",
        "a",
        f"{NAME}/1",
        "ACTIVE",
    )
    assert (total.in_flight, total.pending, total.memory_bytes, total.restarts) == (6, 2, 2**21, 2)
    assert first.p50_seconds == pytest.approx(0.0005)
    assert second.p50_seconds == pytest.approx(0.0055)
    assert total.p95_seconds == pytest.approx(0.001 + 0.009 * (0.95 * 24 - 20) / 4)


def test_replicas_come_go_and_begin_anew() -> None:
    before = look(
        0, replica("a", counters(100)), replica("gone", counters(7_000)), replica("mute", counters(50))
    )
    now = look(10, replica("a", counters(30)), replica("new", counters(20)), replica("mute", None))
    total, first, new, mute = rows(before, now)
    assert [rates(row) for row in (total, first, new, mute)] == [(5, 0), (3, 0), (2, 0), (None, None)]


def test_a_first_look_knows_no_rates() -> None:
    total, only = rows(None, look(0, replica("a", counters(100))))
    assert rates(total) == rates(only) == (None, None)
    assert total.p50_seconds is None


def test_copies_of_a_shadow_are_no_traffic() -> None:
    shadow = replica("s", counters(0), shadow=True)
    before = look(0, replica("a", counters(0)), shadow)
    now = look(1, replica("a", counters(5)), replace(shadow, counters=counters(50)))
    total, _, copied = rows(before, now)
    assert (rates(total), rates(copied), copied.state) == ((5, 0), (50, 0), "READY shadow")
    assert (total.in_flight, total.memory_bytes) == (3, 2**21)


def top(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["top", "--once", "-i", "0.1", *arguments], catch_exceptions=False)


@pytest.fixture
def serving(connected: Fake) -> Fake:
    looks = iter(range(1000))

    def answer(request: pb.GetDeploymentStatisticsRequest) -> pb.GetDeploymentStatisticsResponse:
        number = next(looks)
        counted = statistics_pb2.InferenceCounters(
            success_count=10 * number, latency_bounds=BOUNDS, latency_counts=[0, 10 * number, 0, 0]
        )
        found = statistics_pb2.ReplicaStatistics(
            replica="01980000-0000-7000-8000-0123456789ab",
            model_version=f"{NAME}/3",
            state=deployment_pb2.Replica.STATE_READY,
            measured=True,
            counters=counted,
            in_flight=2,
            memory_bytes=300 * 2**20,
        )
        return pb.GetDeploymentStatisticsResponse(
            statistics=statistics_pb2.DeploymentStatistics(
                deployment=request.deployment,
                state=deployment_pb2.Deployment.STATE_ACTIVE,
                time=Timestamp(seconds=1_000 + 2 * number),
                replicas=[found],
            )
        )

    connected.answers["GetDeploymentStatistics"] = answer
    connected.answers["ListDeployments"] = lambda _: pb.ListDeploymentsResponse(
        deployments=[deployment_pb2.Deployment(id="1", name=NAME)]
    )
    return connected


def test_one_table_is_shown(serving: Fake) -> None:
    head, total, one = top().stdout.splitlines()
    assert head.split() == [
        "deployment",
        "version",
        "state",
        "pred/s",
        "err/s",
        "p50",
        "p95",
        "in",
        "flight",
        "queue",
        "memory",
        "restarts",
    ]
    cells = ["/3", "ACTIVE", "5.0", "0.0", "5.50", "ms", "9.55", "ms", "2", "0", "300", "MiB", "0"]
    assert total.split() == [NAME, *cells]
    assert one.split() == ["0123456789ab", cells[0], "READY", *cells[2:]]
    assert [request.schema for request in serving.requests("ListDeployments")] == ["", ""]


@pytest.mark.parametrize(("columns", "restarts"), [("80", False), ("120", True)])
def test_what_runs_is_shown_before_there_are_rates_as_far_as_there_is_room(
    serving: Fake, monkeypatch: pytest.MonkeyPatch, columns: str, restarts: bool
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelyard.cli.top.time.sleep", interrupt)
    monkeypatch.setenv("FORCE_COLOR", "1")  # else it would not draw, since nobody looks
    monkeypatch.setenv("COLUMNS", columns)
    shown = CliRunner().invoke(app, ["top"], catch_exceptions=False).stdout
    assert NAME in shown
    assert "ACTIVE" in shown
    assert ("restarts" in shown) == restarts
    assert len(serving.requests("GetDeploymentStatistics")) == 1


def test_programs_get_a_list_on_a_line(serving: Fake) -> None:
    (line,) = top("-o", "json").stdout.splitlines()
    total, one = json.loads(line)
    assert (total["predictions_per_second"], total["replica"], one["in_flight"]) == (5.0, "", 2)


def test_one_deployment_is_not_looked_for(serving: Fake) -> None:
    assert NAME in top(NAME).stdout
    assert serving.requests("ListDeployments") == []
    assert {request.deployment for request in serving.requests("GetDeploymentStatistics")} == {NAME}


def test_nothing_deployed_is_said(serving: Fake) -> None:
    serving.answers["ListDeployments"] = lambda _: pb.ListDeploymentsResponse()
    assert "no deployments" in top().stdout


def test_figures_of_versions_are_sums_over_their_replicas_and_averages_for_people(connected: Fake) -> None:
    def one(version: int, answered: int, *, shadow: bool = False, measured: bool = True) -> Any:
        counted = statistics_pb2.InferenceCounters(
            success_count=answered,
            failure_counts={"BACKEND": 1, "CANCELED": 2},
            inference_count=3 * answered,
            execution_count=answered,
            request_ns=10_000_000 * answered,
            queue_ns=4_000_000 * answered,
            compute_infer_ns=5_000_000 * answered,
        )
        return statistics_pb2.ReplicaStatistics(
            replica=f"{version}-{answered}",
            model_version=f"{NAME}/{version}",
            shadow=shadow,
            measured=measured,
            counters=counted if measured else None,
        )

    replicas = [one(3, 10), one(4, 0, shadow=True), one(3, 30), one(3, 0, measured=False)]
    connected.answers["GetDeploymentStatistics"] = lambda _: pb.GetDeploymentStatisticsResponse(
        statistics=statistics_pb2.DeploymentStatistics(deployment=NAME, replicas=replicas)
    )
    arguments = ["deployments", "statistics", NAME]
    table = CliRunner().invoke(app, arguments, catch_exceptions=False)
    head, third, fourth = table.stdout.splitlines()
    assert head.split()[:4] == ["model", "version", "replicas", "success"]
    times = ["10.000", "ms", "4.000", "ms", "0.000", "ms", "5.000", "ms", "0.000", "ms"]
    assert third.split() == [f"{NAME}/3", "2", "40", "6", "120", "40", *times]
    assert fourth.split() == [f"{NAME}/4", "1", "0", "3", "0", "0"]
    rows = json.loads(CliRunner().invoke(app, [*arguments, "-o", "json"], catch_exceptions=False).stdout)
    assert [(row["model_version"], row["shadow"], row["queue_ns"]) for row in rows] == [
        (f"{NAME}/3", False, 160_000_000),
        (f"{NAME}/4", True, 0),
    ]
    assert rows[0]["failure_counts"] == {"BACKEND": 2, "CANCELED": 4}
    connected.answers["GetDeploymentStatistics"] = lambda _: pb.GetDeploymentStatisticsResponse()
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).stderr == "no replicas\n"


def test_tables_come_one_after_the_other_where_there_is_no_terminal(
    serving: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter((None, None))

    def pause(_seconds: float) -> None:
        if next(looks, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("modelyard.cli.top.time.sleep", pause)
    lines = CliRunner().invoke(app, ["top"], catch_exceptions=False).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["deployment", NAME, "0123456789ab"] * 2
