"""What did not change is not made again, and the files are the same as if it were."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from modelyard_gateway.parts import Parts, text_of
from modelyard_gateway.render import render, version_of
from modelyard_gateway.routes import by_deployment
from modelyard_gateway.table import Desired, Predictions
from modelyard_gateway.validation import marks
from tests.unit.gateway.samples import settings
from tests.unit.gateway.test_render import many


def test_a_part_is_made_once_and_forgotten_when_it_is_not_asked_for() -> None:
    made = []

    def make(name: str, number: int) -> dict[str, Any]:
        made.append((name, number))
        return {"name": name, "number": number}

    parts = Parts()
    first = parts.part(make, "a", 1)
    assert parts.part(make, "a", 1) is first
    parts.forget()
    assert parts.part(make, "a", 1) is first
    parts.part(make, "a", 2)
    parts.forget()
    parts.forget()
    assert parts.part(make, "a", 1) == first
    assert made == [("a", 1), ("a", 2), ("a", 1)]


def test_the_text_is_that_of_json() -> None:
    part = Parts().part(dict, (("b", (1, None)), ("a", "é")))
    node = {"z": [part, {"y": True}], "c": {"a": part}, "n": [1.5, None, "x\n"], "e": {}, "l": []}
    assert text_of(node) == json.dumps(node, sort_keys=True)


def test_a_change_of_one_deployment_makes_that_one_alone() -> None:
    parts = Parts()
    before = render(settings(), many(5), parts)
    for wanted in (many(5, changed=3), _let("d3"), _without(3)):
        after, anew = render(settings(), wanted, parts), render(settings(), wanted)
        assert after == anew
        assert marks(after) == marks(anew)
        assert version_of(after.clusters) == version_of(anew.clusters)
        routes, old = by_deployment(after.routes), by_deployment(before.routes)
        assert {name for name in routes if routes[name] is not old[name]} <= {"prod.ml.m3"}
        before = render(settings(), many(5), parts)


def _let(deployment: str) -> Desired:
    made = many(5)
    assert made.predictions
    return replace(made, predictions=Predictions(made.predictions.table, {deployment: ("p1",)}))


def _without(number: int) -> Desired:
    made = many(5)
    assert made.predictions
    table = made.predictions.table
    kept = tuple(route for route in table.routes if route.name != f"prod.ml.m{number}")
    return replace(made, predictions=Predictions(replace(table, routes=kept), {}))
