"""What the catalog knows of a version, as a model card. Pure.

Texts are cut to what a card may hold: it is a draft, and the catalog has the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard_governance.cards.content import Content

_PACKAGES = "packages"


@dataclass(frozen=True)
class Facts:
    """What the catalog says of a version; empty values are unknown."""

    id: str
    model: str
    number: int
    description: str = ""
    author: str = ""
    owner: str = ""
    artifact: str = ""
    runtime: str = ""
    use_case: str = ""
    framework: str = ""
    algorithm: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    commit: str = ""
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    training_data: Sequence[str] = ()
    test_data: Sequence[str] = ()
    upstream: Sequence[str] = ()
    downstream: Sequence[str] = ()


def draft(facts: Facts) -> Content:
    """Return a card with all that is known, and nothing else."""
    numbers = {name: value for name, value in facts.metrics.items() if _is_number(value)}
    charts = {name: value for name, value in facts.metrics.items() if name not in numbers}
    content: Content = {
        "model_overview": {
            "model_name": facts.model,
            "model_id": facts.id,
            "model_version": facts.number,
            "model_description": facts.description,
            "model_creator": facts.author,
            "model_owner": facts.owner,
            "model_artifact": [facts.artifact] if facts.artifact else [],
            "algorithm_type": facts.algorithm or facts.framework or facts.runtime,
            "problem_type": facts.use_case,
        },
        "training_details": {
            "training_job_details": {
                "training_datasets": _texts(facts.training_data, 15),
                "user_provided_training_metrics": [
                    {"name": name[:255], "value": value} for name, value in sorted(numbers.items())[:50]
                ],
                "user_provided_hyper_parameters": [
                    {"name": name[:255], "value": _plain(value)[:255]}
                    for name, value in sorted(facts.hyperparameters.items())[:100]
                    if name
                ],
            }
        },
        "evaluation_details": _evaluations(facts, charts),
        "additional_information": {"custom_details": _details(facts)},
    }
    kept: Content = _without_empty(content)
    return kept


def _evaluations(facts: Facts, charts: Mapping[str, Any]) -> list[Content]:
    data = [metric for name, value in sorted(charts.items()) if (metric := _metric(name, value)) is not None]
    if not data and not facts.test_data:
        return []
    groups = [{"name": "Recorded metrics", "metric_data": data}] if data else []
    return [
        {
            "name": "Recorded with the version",
            "datasets": _texts(facts.test_data, 10),
            "metric_groups": groups,
        }
    ]


def _metric(name: str, value: Any) -> Content | None:
    """Return a metric that is no number as the chart that its form names; None if it has no form of a chart."""
    made: Content = {"name": name[:255]}
    match value:
        case bool():
            return made | {"type": "boolean", "value": value}
        case str():
            return made | {"type": "string", "value": value[:63]}
        case [*numbers] if numbers and all(map(_is_number, numbers)):
            return made | {"type": "bar_chart", "value": numbers}
        case [*rows] if rows and all(_is_row(row) for row in rows):
            if all(len(row) == 2 for row in rows) and len(rows) != 2:
                return made | {"type": "linear_graph", "value": rows}
            if len({len(row) for row in rows}) == 1 and max(len(rows), len(rows[0])) <= 20:
                return made | {"type": "matrix", "value": rows}
    return None


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _details(facts: Facts) -> dict[str, str]:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(facts.packages.items()))
    known = {
        "framework": facts.framework,
        "runtime": facts.runtime,
        "source": facts.source,
        "git_commit": facts.commit,
        "python": facts.python,
        _PACKAGES: packages,
        "made_from": ", ".join(facts.upstream),
        "used_by": ", ".join(facts.downstream),
    }
    tags = {f"tag: {name}": value for name, value in facts.tags.items()}
    return {name: value[:1_024] for name, value in (known | dict(facts.custom) | tags).items() if name}


def _texts(values: Sequence[str], maximum: int) -> list[str]:
    return [value[:1_024] for value in values[:maximum]]


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _without_empty(value: Any) -> Any:
    """Return a value without empty parts, and its texts cut to the length of a card's."""
    if isinstance(value, str):
        return value[:1_024]
    if isinstance(value, dict):
        kept = {name: _without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ("", [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
