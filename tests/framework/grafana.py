"""The Grafana dashboard of this repository, and what its queries ask for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.catalogue import ROOT

FILE = ROOT / "deploy" / "grafana" / "modelyard.json"
_RATE_INTERVAL = "$__rate_interval"
# What Prometheus adds to every series, and Grafana fills in.
_ADDED = frozenset({"job", "instance"})


@cache
def dashboard() -> dict[str, Any]:
    """Return the file."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    yield from (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Return every query, with the intervals that Grafana fills in."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").split(", ")
            asked.append(f"count by ({label}) ({metric})")
    return [query.replace(_RATE_INTERVAL, "5m") for query in asked]


def asked_for() -> dict[str, set[str]]:
    """Return the series that queries name, each with the labels that they choose or group by."""
    found: dict[str, set[str]] = defaultdict(set)
    for query in queries():
        _visit(promql.parse(query), frozenset(), found)
    return dict(found)


def told(text: str) -> dict[str, set[str]]:
    """Return the series of a scrape, each with all its labels."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    return dict(found)


def _visit(expression: Any, labels: frozenset[str], found: dict[str, set[str]]) -> None:
    """Note the series below an expression with the labels that stand around them."""
    if isinstance(expression, promql.MatrixSelector):
        expression = expression.vector_selector
    if isinstance(expression, promql.VectorSelector):
        matched = {matcher.name for matcher in expression.matchers.matchers}
        found[expression.name] |= (labels | matched) - _ADDED
    elif isinstance(expression, promql.AggregateExpr):
        _visit(
            expression.expr,
            labels | frozenset(expression.modifier.labels if expression.modifier else ()),
            found,
        )
    elif isinstance(expression, promql.BinaryExpr):
        _visit(expression.lhs, labels, found)
        _visit(expression.rhs, labels, found)
    elif isinstance(expression, promql.ParenExpr):
        _visit(expression.expr, labels, found)
    elif isinstance(expression, promql.Call):
        for argument in expression.args:
            _visit(argument, labels, found)
    else:
        assert isinstance(expression, promql.NumberLiteral), f"a query has a {type(expression).__name__}"
