"""What Envoy is asked about before a configuration is written: what it has not accepted the like of yet. Pure.

Starting an Envoy to validate takes as long as there is of the configuration, and with thousands of deployments longer than a change may
take. Deployments and groups do not depend on each other, and most differ in nothing but names, which Envoy takes whatever they are: who
may predict, where that leads and what a refusal says. So one of each shape is asked about, when the shape is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from modelyard_gateway import rights
from modelyard_gateway.clusters import group_of_cluster
from modelyard_gateway.parts import Part, text_of
from modelyard_gateway.render import Configuration, referenced_clusters, static_candidate
from modelyard_gateway.routes import by_deployment, only

Json = dict[str, Any]
Marks = frozenset[str]
"""Digests of shapes that Envoy accepted."""

AT_ONCE = 500
"""Deployments, and groups, in one question."""
_ANYTHING = frozenset(
    {"cluster", "cluster_name", "pipe", "port_value", "filter_metadata", "dynamic_metadata", "exact"}
)
"""Fields whose values are not looked at: any text will do, or what can be wrong with it was seen when the route table came in."""
_ANYBODY = frozenset({"name", "value"})
"""The same of rights: ids of deployments and of principals."""


def marks(configuration: Configuration) -> Marks:
    """Return the marks of all parts."""
    parts = (
        _common(configuration),
        *_clusters(configuration).values(),
        *_deployments(configuration).values(),
    )
    return frozenset(parts)


def candidates(configuration: Configuration, accepted: AbstractSet[str]) -> Iterator[tuple[Json, Marks]]:
    """Yield configurations to validate which together hold all that is not accepted, each with the marks of what it holds."""
    common = _common(configuration)
    clusters = _one_of_each(_clusters(configuration), accepted)
    deployments = _one_of_each(_deployments(configuration), accepted)
    most = max(len(clusters), len(deployments), common not in accepted)
    for start in range(0, most, AT_ONCE):
        groups, names = (list(each)[start : start + AT_ONCE] for each in (clusters, deployments))
        routes = only(configuration.routes, names)
        held = referenced_clusters(routes) | set(groups)
        some = [c for c in configuration.clusters if c["name"] in held or group_of_cluster(c["name"]) is None]
        part = replace(
            configuration,
            routes=routes,
            clusters=tuple(some),
            rights=rights.only(configuration.rights, names),
        )
        found = {common, *(clusters[name] for name in groups), *(deployments[name] for name in names)}
        yield static_candidate(part), frozenset(found)


def _one_of_each(found: dict[str, str], accepted: AbstractSet[str]) -> dict[str, str]:
    """Return one name of each mark that is not accepted, with its mark."""
    names = {mark: name for name, mark in found.items() if mark not in accepted}
    return {name: mark for mark, name in names.items()}


def _common(configuration: Configuration) -> str:
    others = only(configuration.routes, ()), rights.only(configuration.rights, ())
    return _mark([configuration.listeners, others, dict(configuration.secrets)])


def _clusters(configuration: Configuration) -> dict[str, str]:
    return {cluster["name"]: _marked(cluster, _cluster_mark) for cluster in configuration.clusters}


def _cluster_mark(cluster: Json) -> str:
    return _mark(_shape({**cluster, "name": ""}, _ANYTHING))


def _deployments(configuration: Configuration) -> dict[str, str]:
    held = rights.by_deployment(configuration.rights)
    return {
        name: _marked(given, _routes_mark) + _marked(held[name], _rights_mark)
        for name, given in by_deployment(configuration.routes).items()
    }


def _routes_mark(routes: Json) -> str:
    return _mark(_shape(routes, _ANYTHING))


def _rights_mark(given: Json) -> str:
    return _mark(_shape(given, _ANYBODY))


def _shape(node: Any, free: AbstractSet[str]) -> Any:
    if isinstance(node, dict):
        return {key: "" if key in free else _shape(value, free) for key, value in node.items()}
    return [_shape(item, free) for item in node] if isinstance(node, list | tuple) else node


def _marked(part: Json, make: Callable[[Json], str]) -> str:
    if not isinstance(part, Part):
        return make(part)
    part.mark = part.mark or make(part)
    return part.mark


def _mark(part: Any) -> str:
    return hashlib.blake2b(text_of(part).encode(), digest_size=16).hexdigest()
