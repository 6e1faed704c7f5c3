"""The history of deployments in PostgreSQL: what each change by a caller left. Every function runs in the caller's transaction.

A revision is written in the transaction of its change. The newest are kept, as many as `revisions_per_deployment` says; they go with
their deployment, of which the audit chain then still knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.references import parse_version_reference
from modelyard_inference import errors
from modelyard_inference.batching_policy import Batching
from modelyard_inference.canary import RolloutPolicy
from modelyard_inference.commands import RollbackDeployment
from modelyard_inference.environment_policy import Environment
from modelyard_inference.fields import REVISIONS
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import Change, Deployment, PastTarget, Revision, Settings
from modelyard_inference.resources import Resources
from modelyard_inference.scaling import Autoscaling
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.tables import revisions
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_inference.variables import sorted_variables
from modelyard_kit.errors import InvalidField
from modelyard_kit.filters import Asked, PrincipalIds, fetch, nobody
from modelyard_kit.limits import LIMITS

_API_NAMES = {"timeout_ms": "timeout", "log_policy": "logging"}


def settings_of(deployment: Deployment) -> Settings:
    """Return what callers decided about a deployment."""
    return Settings(
        description=deployment.description,
        replicas=deployment.replicas,
        max_request_bytes=deployment.max_request_bytes,
        timeout_ms=deployment.timeout_ms,
        require_signature=deployment.require_signature,
        owner_id=deployment.owner_id,
        active=deployment.active,
        targets=tuple(
            PastTarget(
                t.spec.reference,
                t.spec.weight,
                t.wanted.id,
                t.wanted.model_id,
                t.wanted.name,
                t.spec.shadow_percent,
            )
            for t in deployment.targets
        ),
        sticky_header=deployment.sticky_header,
        rollout_policy=deployment.rollout_policy,
        resources=deployment.resources,
        autoscaling=deployment.autoscaling,
        traffic_limits=deployment.traffic_limits,
        private=deployment.private,
        log_policy=deployment.log_policy,
        batching=deployment.batching,
        environment_variables=deployment.environment_variables,
        environment=deployment.environment,
        update_strategy=deployment.update_strategy,
    )


def essence(settings: Settings, *, pinned: bool) -> tuple[object, ...]:
    """Return what a rollback would bring back, to tell whether that is something else.

    Args:
        settings: what callers decided.
        pinned: whether the rollback would bring back versions, not references.
    """
    targets = [
        (t.version_id if pinned else (t.model_id, _suffix(t.reference)), t.weight, t.shadow_percent)
        for t in settings.targets
    ]
    kept = replace(settings, owner_id="", active=True, targets=())
    return (kept, *targets)


def changed_fields(before: Settings, after: Settings) -> tuple[str, ...]:
    """Return which settings a change changed, as the API names the fields of a deployment.

    A target is the same while it is written the same, whatever its alias meant at the time.
    """
    then, now = _written(before), _written(after)
    return tuple(sorted(_API_NAMES.get(name, name) for name in now if now[name] != then[name]))


def _written(settings: Settings) -> dict[str, object]:
    targets = [(t.reference, t.weight, t.shadow_percent) for t in settings.targets]
    written = {**vars(settings), "targets": targets}
    del written["active"]  # what kind of change it was says that
    return written


def _suffix(reference: str) -> str:
    """Return what a reference says beside its model, whose name may change."""
    parsed = parse_version_reference(reference)
    return str(parsed).removeprefix(parsed.model)


async def record(connection: AsyncConnection, revision: Revision) -> None:
    """Write a revision, and forget the oldest ones over the limit."""
    variables = dict(revision.settings.environment_variables)
    settings = {**asdict(revision.settings), "environment_variables": variables}
    row = {**vars(revision), "settings": settings}
    await connection.execute(sa.insert(revisions).values(**row))
    c = revisions.c
    of_deployment = c.deployment_id == revision.deployment_id
    kept = LIMITS["revisions_per_deployment"].maximum
    first = sa.select(c.number).where(of_deployment).order_by(c.number.desc()).offset(kept - 1).limit(1)
    await connection.execute(sa.delete(revisions).where(of_deployment, c.number < first.scalar_subquery()))


async def find(connection: AsyncConnection, deployment_id: str, number: int) -> Revision | None:
    """Return a revision by its number."""
    c = revisions.c
    query = sa.select(revisions).where(c.deployment_id == deployment_id, c.number == number)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _revision(row) if row else None


async def newest_first(connection: AsyncConnection, deployment_id: str) -> list[Revision]:
    """Return all revisions of a deployment."""
    c = revisions.c
    query = sa.select(revisions).where(c.deployment_id == deployment_id).order_by(c.number.desc())
    return list(map(_revision, (await connection.execute(query)).mappings()))


async def page(
    connection: AsyncConnection, asked: Asked, deployment_id: str, principals: PrincipalIds = nobody
) -> tuple[list[Revision], str]:
    """Return a page of the history of a deployment and the token of the next one."""
    query = sa.select(revisions).where(revisions.c.deployment_id == deployment_id)
    rows, token = await fetch(connection, query, asked, REVISIONS, scope=deployment_id, principals=principals)
    return list(map(_revision, rows)), token


def _revision(row: Mapping[Any, Any]) -> Revision:
    values = {column.name: row[column] for column in revisions.c}
    settings = values["settings"]
    read = {
        "targets": tuple(PastTarget(**target) for target in settings["targets"]),
        "rollout_policy": RolloutPolicy.from_json(settings.get("rollout_policy", {})),
        "resources": Resources.from_json(settings.get("resources", {})),
        "autoscaling": Autoscaling.from_json(settings.get("autoscaling", {})),
        "traffic_limits": TrafficLimits(**settings.get("traffic_limits", {})),
        "log_policy": LogPolicy.from_json(settings.get("log_policy", {})),
        "batching": Batching.from_json(settings.get("batching", {})),
        "environment_variables": sorted_variables(settings.get("environment_variables", {})),
        "environment": Environment.from_json(settings.get("environment", {})),
        "update_strategy": UpdateStrategy(
            settings.get("update_strategy", UpdateStrategy.AVAILABILITY_PRESERVING)
        ),
    }
    return Revision(
        **{
            **values,
            "change": Change(values["change"]),
            "changed_fields": tuple(values["changed_fields"]),
            "settings": Settings(**{**settings, **read}),
        }
    )


async def wanted(
    connection: AsyncConnection, deployment: Deployment, command: RollbackDeployment
) -> Revision:
    """Return the revision to go back to: the one that is named, or the newest with other settings than those of now.

    Raises:
        NotFound: there is none with this number.
        InvalidField: none is named, and none has other settings.
    """
    if command.revision:
        found = await find(connection, deployment.id, command.revision)
        if found is None:
            raise errors.no_revision(command.name, command.revision)
        return found
    pinned = command.pin_versions
    now = essence(settings_of(deployment), pinned=pinned)
    for revision in await newest_first(connection, deployment.id):
        if essence(revision.settings, pinned=pinned) != now:
            return revision
    raise InvalidField(
        "revision", "no revision that is kept has other settings than those of now; change them by an update"
    )
