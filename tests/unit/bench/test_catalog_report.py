"""The goals of the catalog's benchmark, as they follow from its measurements."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.bench.catalog_report import (
    CATALOG,
    LARGE,
    MLFLOW,
    SMALL,
    TYPICAL,
    Key,
    Results,
    Sample,
    durations,
    median_of,
    report,
)
from tests.bench.catalog_rows import Rows


def sample(p50_ms: float, per_second: float = 100.0) -> Sample:
    return Sample(p50_ms, p50_ms * 2, per_second, 0, server_ms=p50_ms - 1)


def goals(results: Results, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    report(results, folder / "catalog.json")
    assert json.loads((folder / "catalog.json").read_text())["results"]
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("GOAL ")]


def test_goals_take_the_median_of_rounds_and_the_worst_of_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results({})
    for p50 in (2.0, 9.0, 2.5):
        results.add(Key(CATALOG, "get version", LARGE, 1), sample(p50))
    results.add(Key(CATALOG, "get version", SMALL, 1), sample(1.0))
    results.add(Key(CATALOG, TYPICAL[0], LARGE, 1), sample(5.0))
    results.add(Key(CATALOG, TYPICAL[1], LARGE, 1), sample(30.0))
    for concurrency, rate in ((1, 90.0), (16, 40.0)):
        results.add(Key(CATALOG, "resolve alias", LARGE, concurrency), sample(4.5, rate))
        results.add(Key(MLFLOW, "resolve alias", LARGE, concurrency), sample(9.0, 10.0))
    assert goals(results, tmp_path, capsys) == [
        "GOAL catalog-get-in-service-p50-ms 1.50 3 ok",
        "GOAL catalog-resolve-in-service-p50-ms 3.50 3 short",
        "GOAL catalog-search-p50-ms 30.00 25 short",
        "GOAL catalog-growth 2.50 2 short",
        "GOAL catalog-alias-vs-mlflow 4.00 5 short",
    ]


def test_a_small_run_reaches_no_goal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results({})
    results.add(Key(CATALOG, "get version", SMALL, 1), sample(1.0))
    results.add(Key(MLFLOW, "resolve alias", SMALL, 1), sample(1.0))
    results.add(Key(CATALOG, "resolve alias", SMALL, 1), sample(1.0))
    assert goals(results, tmp_path, capsys) == []


def test_the_durations_of_a_service_are_read_as_it_tells_them() -> None:
    name = "rpc_server_duration_milliseconds_bucket"
    labels = 'rpc_grpc_status_code="{}",rpc_method="modelyard.api.catalog.v1.CatalogService/{}"'
    lines = [
        f'{name}{{le="5.0",{labels.format("OK", "GetModelVersion")}}} 3.0',
        f'{name}{{le="+Inf",{labels.format("OK", "GetModelVersion")}}} 4.0',
        f'{name}{{le="+Inf",{labels.format("NOT_FOUND", "GetModelVersion")}}} 1.0',
        f'{name}{{le="5.0",{labels.format("OK", "GetModel")}}} 99.0',
    ]
    assert durations("\n".join(lines), "GetModelVersion") == {5.0: 3, math.inf: 5}


def test_half_of_the_calls_took_no_longer_than_the_median() -> None:
    assert median_of({2.0: 10, 3.0: 30, 4.0: 40, math.inf: 40}) == 2.5
    assert median_of({2.0: 0, 3.0: 20, 4.0: 40, math.inf: 40}) == 3.0
    assert median_of({2.0: 0, math.inf: 3}) == math.inf
    assert median_of({2.0: 0, math.inf: 0}) is None
    assert median_of({}) is None


@pytest.mark.parametrize("size", [100, 1_000, 12_345, 1_000_000])
def test_every_version_is_of_some_model(size: int) -> None:
    rows = Rows(size)
    assert sum(rows.versions_of(model) for model in range(rows.models + 1)) == size
