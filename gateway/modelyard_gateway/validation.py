"""What Envoy is asked about before a configuration is written: the parts of it that it has not accepted yet. Pure.

Starting an Envoy to validate takes as long as there is of the configuration, and with thousands of deployments longer than a change may
take. Deployments and groups do not depend on each other, so each is asked about when it is new or another, some at a time. Who may predict
changes often and is wanted at once: with one list of principals accepted, the same routes with other names in it are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from modelyard_gateway.clusters import group_of_cluster
from modelyard_gateway.parts import Part, text_of
from modelyard_gateway.render import Configuration, referenced_clusters, static_candidate
from modelyard_gateway.route_parts import RBAC, every_route
from modelyard_gateway.routes import by_deployment, only

Json = dict[str, Any]
Marks = frozenset[str]
"""Digests of parts that Envoy accepted."""

AT_ONCE = 500
"""Deployments, and groups, in one question."""


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
    clusters = {name: mark for name, mark in _clusters(configuration).items() if mark not in accepted}
    deployments = {name: mark for name, mark in _deployments(configuration).items() if mark not in accepted}
    most = max(len(clusters), len(deployments), common not in accepted)
    for start in range(0, most, AT_ONCE):
        groups, names = (list(each)[start : start + AT_ONCE] for each in (clusters, deployments))
        routes = only(configuration.routes, names)
        held = referenced_clusters(routes) | set(groups)
        some = [c for c in configuration.clusters if c["name"] in held or group_of_cluster(c["name"]) is None]
        part = replace(configuration, routes=routes, clusters=tuple(some))
        found = {common, *(clusters[name] for name in groups), *(deployments[name] for name in names)}
        yield static_candidate(part), frozenset(found)


def _common(configuration: Configuration) -> str:
    others = only(configuration.routes, ())
    return _mark([configuration.listeners, others, dict(configuration.secrets)])


def _clusters(configuration: Configuration) -> dict[str, str]:
    return {cluster["name"]: _marked(cluster, _mark) for cluster in configuration.clusters}


def _deployments(configuration: Configuration) -> dict[str, str]:
    found = by_deployment(configuration.routes)
    return {name: _marked(given, _deployment_mark) for name, given in found.items()}


def _deployment_mark(given: Json) -> str:
    return _mark(list(map(_without_principals, every_route([given]))))


def _without_principals(route: Json) -> Json:
    filters = route["typed_per_filter_config"]
    policies = filters[RBAC].get("rbac", {}).get("rules", {}).get("policies", {})
    blank = {name: {**policy, "principals": []} for name, policy in policies.items()}
    return {**route, "typed_per_filter_config": {**filters, RBAC: blank}}


def _marked(part: Json, make: Callable[[Json], str]) -> str:
    if not isinstance(part, Part):
        return make(part)
    part.mark = part.mark or make(part)
    return part.mark


def _mark(part: Any) -> str:
    return hashlib.blake2b(text_of(part).encode(), digest_size=16).hexdigest()
