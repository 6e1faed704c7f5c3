"""Rows as the tables keep them, and what they stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from modelyard_inference import tables as t
from modelyard_inference.batching_policy import Batching
from modelyard_inference.canary import Rejection, Rollout, RolloutPolicy
from modelyard_inference.environment_policy import Environment
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import (
    ROUTED_STATES,
    Condition,
    Deployment,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    Status,
    Target,
    TargetSpec,
    Version,
)
from modelyard_inference.resources import Resources
from modelyard_inference.route_table import Route, RouteTarget
from modelyard_inference.scaling import Autoscaling, Scale
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_inference.variables import sorted_variables


def deployment_row(deployment: Deployment) -> dict[str, Any]:
    """Return the columns of a deployment."""
    values = {column.name: getattr(deployment, column.name) for column in t.deployments.c}
    rollout, rejection = deployment.rollout, deployment.rejection
    return {
        **values,
        "conditions": plain_conditions(deployment.conditions),
        "rollout_policy": asdict(deployment.rollout_policy),
        "traffic_limits": asdict(deployment.traffic_limits),
        "log_policy": asdict(deployment.log_policy),
        "rollout": rollout.to_json() if rollout else None,
        "rejection": rejection.to_json() if rejection else None,
        "resources": asdict(deployment.resources),
        "autoscaling": asdict(deployment.autoscaling),
        "batching": asdict(deployment.batching),
        "environment_variables": dict(deployment.environment_variables),
        "environment": asdict(deployment.environment),
    }


def deployment(row: Mapping[Any, Any]) -> Deployment:
    """Return the deployment of a row; what other tables know of it is left out."""
    values = {column.name: row[column] for column in t.deployments.c}
    read = {
        "state": DeploymentState(row["state"]),
        "conditions": tuple(map(_condition, row["conditions"])),
        "rollout_policy": RolloutPolicy.from_json(row["rollout_policy"]),
        "traffic_limits": TrafficLimits(**row["traffic_limits"]),
        "log_policy": LogPolicy.from_json(row["log_policy"]),
        "rollout": Rollout.from_json(row["rollout"]) if row["rollout"] else None,
        "rejection": Rejection.from_json(row["rejection"]) if row["rejection"] else None,
        "resources": Resources.from_json(row["resources"]),
        "autoscaling": Autoscaling.from_json(row["autoscaling"]),
        "batching": Batching.from_json(row["batching"]),
        "environment_variables": sorted_variables(row["environment_variables"]),
        "environment": Environment.from_json(row["environment"]),
        "update_strategy": UpdateStrategy(row["update_strategy"]),
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


def group_row(group: Group) -> dict[str, Any]:
    """Return the columns of a group."""
    written = {
        "version": asdict(group.version),
        "resources": asdict(group.resources),
        "scale": group.scale.to_json() if group.scale else None,
        "batching": asdict(group.batching),
        "environment_variables": dict(group.environment_variables),
        "environment": asdict(group.environment),
    }
    return {**vars(group), **written}


def group(row: Mapping[Any, Any]) -> Group:
    """Return the group of a row."""
    read = {
        "state": GroupState(row["state"]),
        "version": Version(**row["version"]),
        "resources": Resources.from_json(row["resources"]),
        "scale": Scale.from_json(row["scale"]) if row["scale"] else None,
        "batching": Batching.from_json(row["batching"]),
        "environment_variables": sorted_variables(row["environment_variables"]),
        "environment": Environment.from_json(row["environment"]),
    }
    return Group(**{**row, **read})


def routes(
    deployments: Sequence[Deployment], groups: Sequence[Group], replicas: Sequence[Replica], activator: str
) -> tuple[Route, ...]:
    """Return what gateways see of deployments; a group that sleeps has the address `activator`."""
    addresses: dict[str, list[str]] = defaultdict(list)
    for each in replicas:
        if each.routed:
            addresses[each.group_id].append(each.address)
    targets: dict[str, list[RouteTarget]] = defaultdict(list)
    for one in groups:
        if one.state in ROUTED_STATES:
            found = addresses[one.id]
            held = not found and not one.shadow and bool(activator)
            target = _route_target(one, [activator] if held else found, held=held)
            targets[one.deployment_id].append(target)
    return tuple(_route(d, targets[d.id]) for d in deployments if d.id in targets or idle(d))


def _route(deployment: Deployment, targets: Sequence[RouteTarget]) -> Route:
    return Route(
        deployment.chain,
        tuple(targets),
        deployment.max_request_bytes,
        deployment.timeout_ms,
        deployment.sticky_header,
        measured=deployment.measured,
        traffic_limits=deployment.traffic_limits,
        private=deployment.private,
        idle=idle(deployment) or "",
    )


def idle(deployment: Deployment) -> DeploymentState | None:
    """Return why nothing answers, as who asks it is told; None while something does, or it is being deleted."""
    if deployment.answers or deployment.state is DeploymentState.DELETING:
        return None
    if not deployment.active:
        return DeploymentState.INACTIVE
    failed = deployment.state is DeploymentState.FAILED
    return DeploymentState.FAILED if failed else DeploymentState.CREATING


def of_route(deployment: Deployment) -> tuple[object, ...]:
    """Return what `route` tells gateways of a deployment beside its groups."""
    return (
        deployment.max_request_bytes,
        deployment.timeout_ms,
        deployment.sticky_header,
        deployment.measured,
        deployment.traffic_limits,
        deployment.private,
        idle(deployment),
        deployment.owner_id,
    )


def _route_target(group: Group, addresses: Sequence[str], *, held: bool) -> RouteTarget:
    weight, percent = (0, group.weight) if group.shadow else (group.weight, 0)
    return RouteTarget(group.name, group.version.name, weight, tuple(addresses), percent, group.shadow, held)


def replica(row: Mapping[Any, Any]) -> Replica:
    """Return the replica of a row."""
    values = {column.name: row[column] for column in t.replicas.c}
    return Replica(**{**values, "state": ReplicaState(row["state"])})
