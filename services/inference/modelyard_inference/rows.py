"""Rows as the tables keep them, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from modelyard_inference import tables as t
from modelyard_inference.canary import Rejection, Rollout, RolloutPolicy
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import (
    Condition,
    Deployment,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    Route,
    RouteTarget,
    Status,
    Target,
    TargetSpec,
    Version,
)


def deployment_row(deployment: Deployment) -> dict[str, Any]:
    """Return the columns of a deployment."""
    values = {column.name: getattr(deployment, column.name) for column in t.deployments.c}
    rollout, rejection = deployment.rollout, deployment.rejection
    return {
        **values,
        "conditions": plain_conditions(deployment.conditions),
        "rollout_policy": asdict(deployment.rollout_policy),
        "log_policy": asdict(deployment.log_policy),
        "rollout": rollout.to_json() if rollout else None,
        "rejection": rejection.to_json() if rejection else None,
    }


def deployment(row: Mapping[Any, Any]) -> Deployment:
    """Return the deployment of a row; what other tables know of it is left out."""
    values = {column.name: row[column] for column in t.deployments.c}
    read = {
        "state": DeploymentState(row["state"]),
        "conditions": tuple(map(_condition, row["conditions"])),
        "rollout_policy": RolloutPolicy.from_json(row["rollout_policy"]),
        "log_policy": LogPolicy.from_json(row["log_policy"]),
        "rollout": Rollout.from_json(row["rollout"]) if row["rollout"] else None,
        "rejection": Rejection.from_json(row["rejection"]) if row["rejection"] else None,
    }
    return Deployment(**{**values, **read})


def plain_conditions(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Return conditions as JSON."""
    return [{**asdict(c), "change_time": c.change_time and c.change_time.isoformat()} for c in conditions]


def _condition(row: Mapping[str, Any]) -> Condition:
    time = row["change_time"] and datetime.fromisoformat(row["change_time"])
    return Condition(**{**row, "status": Status(row["status"]), "change_time": time})


def target(row: Mapping[Any, Any]) -> Target:
    """Return the target of a row."""
    return Target(
        spec=TargetSpec(
            row["reference"],
            row["model"],
            follows=row["follows"],
            weight=row["weight"],
            shadow_percent=row["shadow_percent"],
        ),
        wanted=Version(**row["wanted"]),
        problem=row["problem"],
        serving=row["serving"],
        serving_digest=row["serving_digest"],
        serving_weight=row["serving_weight"],
    )


def group(row: Mapping[Any, Any]) -> Group:
    """Return the group of a row."""
    return Group(**{**row, "state": GroupState(row["state"]), "version": Version(**row["version"])})


def route(deployment: Deployment, targets: Sequence[RouteTarget]) -> Route:
    """Return a deployment as gateways see it."""
    return Route(
        deployment.chain,
        tuple(targets),
        deployment.max_request_bytes,
        deployment.timeout_ms,
        deployment.sticky_header,
        measured=bool(deployment.rollout_policy.steps),
    )


def route_target(group: Group, addresses: Sequence[str]) -> RouteTarget:
    """Return a group as gateways see it."""
    weight, percent = (0, group.weight) if group.shadow else (group.weight, 0)
    return RouteTarget(group.name, group.version.name, weight, tuple(addresses), percent, group.shadow)


def replica(row: Mapping[Any, Any]) -> Replica:
    """Return the replica of a row."""
    values = {column.name: row[column] for column in t.replicas.c}
    return Replica(**{**values, "state": ReplicaState(row["state"])})
