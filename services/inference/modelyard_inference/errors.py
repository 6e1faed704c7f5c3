"""Refusals of the inference control plane.

Nearly all of them are common to several services, so their classes are in the kit: INVALID_FIELD, RESOURCE_NOT_FOUND,
RESOURCE_ALREADY_EXISTS, ETAG_MISMATCH, REQUEST_ID_REUSED, INVALID_STATE, POLICY_UNMET, LIMIT_EXCEEDED, PERMISSION_DENIED,
PEER_UNAVAILABLE. This module binds them to deployments, so that every message names the thing in the same way.
"""

from __future__ import annotations

from modelyard_inference.models import Deployment
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import AlreadyExists, DomainError, EtagMismatch, InvalidState, NotFound


class TooManyHeld(DomainError):
    """As many predictions wait for a first replica as may."""

    reason = "QUEUE_FULL"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"as many predictions wait for a first replica as may ({maximum}, or 256 MiB); repeat later",
            metadata={"maximum": str(maximum)},
        )


def no_deployment(name: str) -> NotFound:
    """Return the refusal of a name or id that no deployment has."""
    return NotFound(ResourceType.DEPLOYMENT, name)


def no_revision(name: str, number: int) -> NotFound:
    """Return the refusal of a number that no revision that is kept has."""
    return NotFound("deployment_revision", f"{name}, revision {number}")


def no_replica(name: str, replica_id: str) -> NotFound:
    """Return the refusal of an id that no replica of the deployment has."""
    return NotFound("replica", f"{name}, replica {replica_id}")


def name_taken(name: str) -> AlreadyExists:
    """Return the refusal of a name that a deployment has already."""
    return AlreadyExists(ResourceType.DEPLOYMENT, name)


def changed_meanwhile(deployment: Deployment, etag: str) -> EtagMismatch:
    """Return the refusal of a change that was made for another state of the deployment."""
    return EtagMismatch(ResourceType.DEPLOYMENT, deployment.name, expected=etag, actual=deployment.etag)


def no_rollout(deployment: Deployment) -> InvalidState:
    """Return the refusal to steer a rollout where none is."""
    return InvalidState(
        ResourceType.DEPLOYMENT,
        deployment.name,
        state="not in a rollout",
        wanted="a rollout in steps that is under way",
    )


def on_its_way_out(deployment: Deployment) -> InvalidState:
    """Return the refusal to change a deployment that is being removed."""
    return InvalidState(
        ResourceType.DEPLOYMENT,
        deployment.name,
        state=deployment.state,
        wanted="CREATING, ACTIVE, UPDATING, FAILED or INACTIVE",
    )
