"""Who may predict becomes what the RBAC filter looks up, and stays right while the routes change."""

from __future__ import annotations

from typing import Any

from modelyard_gateway.parts import Parts
from modelyard_gateway.rights import between, by_deployment, rights
from modelyard_gateway.table import Predictions, Route, RouteTable
from modelyard_kit.access import SYSTEM, Link, ResourceType

SUBJECT = {"key": "jwt_payload"}, {"key": "sub"}


def given(*deployments: tuple[str, str, tuple[str, ...]], private: bool = False) -> dict[str, Any]:
    """Rights at deployments: name, id and who may."""
    routes = tuple(
        Route((Link(ResourceType.DEPLOYMENT, number, name), SYSTEM), (), 0, 1.0, private=private)
        for name, number, _ in deployments
    )
    allowed = {number: principals for _, number, principals in deployments}
    return rights(Predictions(RouteTable(1, routes), allowed), Parts())


def conditions(found: dict[str, Any], name: str) -> list[tuple[list[str], Any]]:
    """What has to be true for a prediction, as paths in metadata and their values."""
    (matcher,) = by_deployment(found)[name]["matcher"]["matcher_list"]["matchers"]
    assert matcher["on_match"]["action"]["typed_config"]["action"] == "ALLOW"
    predicate = matcher["predicate"]
    singles = predicate["and_matcher"]["predicate"] if "and_matcher" in predicate else [predicate]
    return [
        (
            [part["key"] for part in single["single_predicate"]["input"]["typed_config"]["path"]],
            single["single_predicate"]["custom_match"]["typed_config"]["value"],
        )
        for single in singles
    ]


def test_those_who_may_are_matched_by_their_ids() -> None:
    one = {"string_match": {"exact": "p1"}}
    assert conditions(given(("a", "1", ("p1",))), "a") == [(["jwt_payload", "sub"], one)]
    both = {"or_match": {"value_matchers": [one, {"string_match": {"exact": "p2"}}]}}
    assert conditions(given(("a", "1", ("p2", "p1"))), "a") == [(["jwt_payload", "sub"], both)]
    ((_, who), (path, value)) = conditions(given(("a", "1", ("p1",)), private=True), "a")
    assert (who, path, value) == (one, ["private"], {"bool_match": True})


def test_nobody_may_where_nobody_was_let_in() -> None:
    assert by_deployment(given(("a", "1", ())))["a"]["action"]["typed_config"]["action"] == "DENY"
    assert rights(None, Parts())["typed_config"]["rules"] == {"action": "ALLOW", "policies": {}}
    assert by_deployment(rights(None, Parts())) == {}


def test_while_routes_change_names_that_go_keep_their_rights_and_new_ones_have_theirs() -> None:
    before = given(("stays", "1", ("p1",)), ("goes", "2", ("p1",)))
    after = given(("stays", "1", ("p2",)), ("comes", "3", ("p2",)))
    old, new, held = map(by_deployment, (before, after, between(before, after)))
    assert held == {"stays": new["stays"], "goes": old["goes"], "comes": new["comes"]}
    assert between(before, before) is before
    assert between(None, after) is after


def test_while_routes_change_nobody_may_at_a_name_that_becomes_another_deployment() -> None:
    """Otherwise who may at the one would reach the other, until Envoy has taken the routes."""
    before = given(("a", "1", ("p1",)), ("b", "2", ()))
    after = given(("a", "9", ("p1", "p2")), ("b", "8", ("p2",)))
    assert by_deployment(between(before, after)) == {}
