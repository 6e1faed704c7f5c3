"""Settings of a deployment that exclude each other."""

from __future__ import annotations

from modelyard_inference.models import Deployment
from modelyard_inference.strategies import UpdateStrategy
from modelyard_kit.errors import InvalidField

_FIELD = "deployment.update_strategy"


def check(deployment: Deployment) -> None:
    """Refuse settings that exclude each other.

    Raises:
        InvalidField: there are some.
    """
    if deployment.update_strategy is not UpdateStrategy.RESOURCE_PRESERVING:
        return
    if deployment.autoscaling.on:
        told = "RESOURCE_PRESERVING needs a fixed number of replicas: take autoscaling away"
        raise InvalidField(_FIELD, told)
    if deployment.rollout_policy.steps:
        told = (
            "RESOURCE_PRESERVING cannot keep the old beside the new to go back to, as steps need it:"
            " take rollout_policy away"
        )
        raise InvalidField(_FIELD, told)
