"""Who may predict at which deployment: what the RBAC filter looks up by the name that also chose the route. Pure.

It is a file of its own, because a grant has to count soon and a new route table takes Envoy many times as long. So that no version of one
meets a version of the other that it does not belong to, `between` holds while the routes change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelyard_gateway.clusters import TYPE
from modelyard_gateway.parts import Parts
from modelyard_gateway.route_parts import (
    EXECUTE_DENIED,
    HEADER,
    PRIVATE,
    RBAC,
    SUBJECT,
    Json,
    header_input,
    one_of,
)
from modelyard_gateway.table import Predictions

_TRUE: Json = {"bool_match": True}
RBAC_TYPE = TYPE + "envoy.extensions.filters.http.rbac.v3.RBAC"


def rights(predictions: Predictions | None, parts: Parts) -> Json:
    """Return the configuration of the filter; nobody may anything while nothing is known."""
    routes = predictions.table.routes if predictions else ()
    allowed = predictions.allowed if predictions else {}
    by_name = {
        route.name: parts.part(
            _deployment, route.deployment[0].id, tuple(allowed.get(route.deployment[0].id, ())), route.private
        )
        for route in sorted(routes, key=lambda route: route.name)
    }
    return _filter(by_name)


def by_deployment(given: Json | None) -> Json:
    """Return the rights at each deployment, by its name."""
    matcher = given["typed_config"].get("matcher") if given else None
    found: Json = (
        matcher["on_no_match"]["matcher"]["matcher_tree"]["exact_match_map"]["map"] if matcher else {}
    )
    return found


def only(given: Json | None, deployments: Iterable[str]) -> Json | None:
    """Return rights without those at other deployments than these."""
    found = by_deployment(given)
    return _filter({name: found[name] for name in deployments}) if given else None


def between(before: Json | None, after: Json) -> Json:
    """Return what holds while routes of `before` and of `after` are served: at a name that changes its deployment nobody may anything."""
    old, new = by_deployment(before), by_deployment(after)
    gone = {name: old[name] for name in old.keys() - new.keys()}
    same = {name: given for name, given in new.items() if name not in old or _id(old[name]) == _id(given)}
    return after if not gone and len(same) == len(new) else _filter(same | gone)


def _filter(by_name: Json) -> Json:
    """A token that is limited to other privileges than EXECUTE says so in its claim `no_execute`."""
    nobody: Json = {"rules": {"action": "ALLOW", "policies": {}}}
    named: Json = {"matcher_tree": {"input": header_input(HEADER), "exact_match_map": {"map": by_name}}}
    limited = {"predicate": _is(EXECUTE_DENIED, _TRUE), "on_match": _action("limited", "DENY")}
    looked_up = {
        "matcher": {"matcher_list": {"matchers": [limited]}, "on_no_match": {"matcher": named}},
    }
    return {
        "@type": TYPE + "envoy.config.core.v3.TypedExtensionConfig",
        "name": RBAC,
        "typed_config": {"@type": RBAC_TYPE, **(looked_up if by_name else nobody)},
    }


def _deployment(deployment_id: str, principals: Sequence[str], private: bool) -> Json:  # noqa: FBT001 - inputs of a part have no names
    """The `sub` of the verified token must be one of `principals`; at a private deployment the call must have come to its listener."""
    if not principals:
        return _action(deployment_id, "DENY")
    predicate = _is(SUBJECT, one_of(principals))
    if private:
        predicate = {"and_matcher": {"predicate": [predicate, _is(PRIVATE, _TRUE)]}}
    matcher = {"predicate": predicate, "on_match": _action(deployment_id, "ALLOW")}
    return {"matcher": {"matcher_list": {"matchers": [matcher]}}}


def _id(given: Json) -> str:
    """Return the id of the deployment, which is the name of what is done."""
    done = given if "action" in given else given["matcher"]["matcher_list"]["matchers"][0]["on_match"]
    found: str = done["action"]["typed_config"]["name"]
    return found


def _action(name: str, action: str) -> Json:
    kind = TYPE + "envoy.config.rbac.v3.Action"
    return {"action": {"name": "rbac", "typed_config": {"@type": kind, "name": name, "action": action}}}


def _is(metadata: tuple[str, ...], value: Json) -> Json:
    namespace, *path = metadata
    source = {
        "@type": TYPE + "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        "filter": namespace,
        "path": [{"key": key} for key in path],
    }
    matches = {
        "@type": TYPE + "envoy.extensions.matching.input_matchers.metadata.v3.Metadata",
        "value": value,
    }
    return {
        "single_predicate": {
            "input": {"name": "metadata", "typed_config": source},
            "custom_match": {"name": "value", "typed_config": matches},
        }
    }
