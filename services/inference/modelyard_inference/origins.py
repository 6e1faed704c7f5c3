"""Rollouts in PostgreSQL: where one stands, and what the deployment answered with before, to go back to.

Every function with a connection runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.batching_policy import Batching
from modelyard_inference.canary import Rejection, Rollout
from modelyard_inference.environment_policy import Environment
from modelyard_inference.models import Deployment, DeploymentState, Target, TargetSpec, Version
from modelyard_inference.resources import Resources
from modelyard_inference.tables import deployments, rollout_origins
from modelyard_inference.variables import Variables, sorted_variables

_BEFORE = "before"


@dataclass(frozen=True)
class Origin:
    """All that makes the groups of a deployment."""

    max_request_bytes: int
    require_signature: bool
    resources: Resources
    batching: Batching
    environment_variables: Variables
    environment: Environment
    targets: tuple[tuple[TargetSpec, Version], ...]


async def remember(connection: AsyncConnection, deployment: Deployment, *, replaces: bool = False) -> None:
    """Write that a deployment answers with all that it wants.

    Args:
        connection: of the transaction.
        deployment: what it wants.
        replaces: whether what it answered with until now may have to come back, after all.
    """
    known = await _content(connection, deployment.id) or {}
    before = (
        {name: value for name, value in known.items() if name != _BEFORE} if replaces else known.get(_BEFORE)
    )
    content = {
        "max_request_bytes": deployment.max_request_bytes,
        "require_signature": deployment.require_signature,
        "resources": asdict(deployment.resources),
        "batching": asdict(deployment.batching),
        "environment_variables": dict(deployment.environment_variables),
        "environment": asdict(deployment.environment),
        "targets": [{**asdict(t.spec), "wanted": asdict(t.wanted)} for t in deployment.targets],
        _BEFORE: before or None,
    }
    statement = upsert(rollout_origins).values(deployment_id=deployment.id, content=content)
    changed = {"content": statement.excluded.content}
    await connection.execute(statement.on_conflict_do_update(index_elements=["deployment_id"], set_=changed))


async def find(connection: AsyncConnection, deployment_id: str, *, before: bool = False) -> Origin | None:
    """Return what a deployment answered with, or with `before` what it did before that; None if it never did as a whole."""
    content = await _content(connection, deployment_id)
    if content is not None and before:
        content = content.get(_BEFORE)
    return None if content is None else _origin(content)


async def _content(connection: AsyncConnection, deployment_id: str) -> dict[str, Any] | None:
    query = sa.select(rollout_origins.c.content).where(rollout_origins.c.deployment_id == deployment_id)
    content: dict[str, Any] | None = (await connection.execute(query)).scalar_one_or_none()
    return content


def _origin(content: Mapping[str, Any]) -> Origin:
    targets = []
    for row in content["targets"]:
        spec = TargetSpec(**{name: value for name, value in row.items() if name != "wanted"})
        targets.append((spec, Version(**row["wanted"])))
    return Origin(
        content["max_request_bytes"],
        content["require_signature"],
        Resources.from_json(content.get("resources", {})),
        Batching.from_json(content.get("batching", {})),
        sorted_variables(content.get("environment_variables", {})),
        Environment.from_json(content.get("environment", {})),
        tuple(targets),
    )


async def set_rollout(connection: AsyncConnection, deployment_id: str, rollout: Rollout | None) -> None:
    """Write where the rollout of a deployment stands."""
    statement = sa.update(deployments).where(deployments.c.id == deployment_id)
    await connection.execute(statement.values(rollout=rollout.to_json() if rollout else None))


async def forget_rejection(connection: AsyncConnection, deployment_id: str) -> None:
    """Forget what was taken back of a deployment that wants something else now."""
    statement = sa.update(deployments).where(deployments.c.id == deployment_id)
    await connection.execute(statement.values(rejection=None))


def taken_back(deployment: Deployment, origin: Origin, rejection: Rejection) -> Deployment:
    """Return a deployment that wants again what it answered with, and says why."""
    targets = tuple(
        Target(
            spec,
            wanted,
            serving=wanted.name,
            serving_digest=wanted.artifact_digest,
            serving_weight=spec.weight,
        )
        for spec, wanted in origin.targets
    )
    return replace(
        deployment,
        targets=targets,
        max_request_bytes=origin.max_request_bytes,
        require_signature=origin.require_signature,
        resources=origin.resources,
        batching=origin.batching,
        environment_variables=origin.environment_variables,
        environment=origin.environment,
        state=DeploymentState.UPDATING,
        state_message="",
        rollout=None,
        rejection=rejection,
        revision=deployment.revision + 1,
    )
