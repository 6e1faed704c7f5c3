"""What callers did, as the history and the audit chain keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import history
from modelyard_inference.models import Change, Deployment, Revision
from modelyard_kit import outbox
from modelyard_kit.auth import Call


@dataclass(frozen=True)
class Deed:
    """What a caller does, and why."""

    change: Change
    reason: str
    rolled_back_to: int = 0


def content(deployment: Deployment) -> dict[str, object]:
    """Return what events tell of a deployment."""
    return {
        "targets": [
            {
                "reference": t.spec.reference,
                "model_version": t.wanted.name,
                "weight": t.spec.weight,
                "shadow_percent": t.spec.shadow_percent,
            }
            for t in deployment.targets
        ],
        "description": deployment.description,
        "replicas": deployment.replicas,
        "max_request_bytes": deployment.max_request_bytes,
        "timeout_ms": deployment.timeout_ms,
        "require_signature": deployment.require_signature,
        "sticky_header": deployment.sticky_header,
        "rollout_policy": asdict(deployment.rollout_policy),
        "resources": asdict(deployment.resources),
        "autoscaling": asdict(deployment.autoscaling),
        "traffic_limits": asdict(deployment.traffic_limits),
        "private": deployment.private,
        "logging": asdict(deployment.log_policy),
        "batching": asdict(deployment.batching),
        "environment_variables": [name for name, _ in deployment.environment_variables],
        "environment": asdict(deployment.environment),
        "update_strategy": deployment.update_strategy,
        "owner_id": deployment.owner_id,
    }


async def remember(
    connection: AsyncConnection,
    call: Call,
    deed: Deed,
    deployment: Deployment,
    data: Mapping[str, object],
    *,
    before: Deployment | None = None,
) -> None:
    """Write what was done into the history of a deployment, and into the outbox.

    Args:
        connection: in a transaction.
        call: who did it.
        deed: what kind of thing it was, and why.
        deployment: as it left it.
        data: what the event tells.
        before: as it found it; None if it made it.
    """
    settings = history.settings_of(deployment)
    revision = Revision(
        deployment_id=deployment.id,
        number=deployment.revision,
        change=deed.change,
        actor_id=call.principal.id,
        actor_name=call.principal.name,
        reason=deed.reason,
        create_time=deployment.update_time,
        rolled_back_to=deed.rolled_back_to,
        settings=settings,
        changed_fields=history.changed_fields(history.settings_of(before), settings) if before else (),
    )
    await history.record(connection, revision)
    why: dict[str, object] = {"reason": deed.reason} if deed.reason else {}
    if deed.rolled_back_to:
        why["rolled_back_to"] = deed.rolled_back_to
    await outbox.append(connection, event(deed.change.lower(), call, deployment, {**data, **why}))


def event(verb: str, call: Call, deployment: Deployment, data: Mapping[str, object]) -> outbox.Event:
    """Return the event of a change."""
    return outbox.Event(
        f"inference.deployment.{verb}", deployment.chain[0], call.principal, call.request_id, data
    )
