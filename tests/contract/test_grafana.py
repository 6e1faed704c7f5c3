"""The Grafana dashboard: what Grafana reads of it is all of it, and its queries are PromQL about metrics that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import promql_parser as promql
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from modelyard_inference.scrape import METRICS
from tests.framework.grafana import asked_for, dashboard, panels, queries


def left_out(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """Yield what Grafana's types do not know, or read as something else."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            if key in read:
                yield from left_out(value, read[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from left_out(one, other, f"{path}/{number}")
    elif given != read:
        yield path


def test_grafana_reads_all_of_it() -> None:
    read = json.loads(json.dumps(Dashboard.from_json(dashboard()), cls=JSONEncoder))
    assert list(left_out(dashboard(), read)) == []


def test_what_grafana_does_not_know_is_found() -> None:
    wrong = {**dashboard(), "tittle": "x"}
    read = json.loads(json.dumps(Dashboard.from_json(wrong), cls=JSONEncoder))
    assert list(left_out(wrong, read)) == ["/tittle"]


def test_panels_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in dashboard()["panels"])
    ]
    assert all(not one & other for one, other in combinations(cells, 2))
    assert all(x < 24 for cell in cells for x, _ in cell)


def test_panels_ask_the_chosen_data_source() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == sorted(
            {t["refId"] for t in panel["targets"]}
        )
        assert all(target["datasource"] == source for target in panel["targets"])


@pytest.mark.parametrize("query", queries())
def test_queries_are_promql(query: str) -> None:
    promql.parse(query)


def test_every_metric_of_replicas_is_shown() -> None:
    shown = {name.removesuffix("_bucket") for name in asked_for()}
    assert shown >= METRICS
    ours = {name for name in shown if name.startswith(("nv_", "modelyard_"))}
    assert ours == METRICS | {"modelyard_shadow_copies_total", "modelyard_prediction_log_lines_total"}
