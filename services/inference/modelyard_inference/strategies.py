"""What a change of a deployment may cost while it lasts: more replicas, or a part of those that answer."""

from __future__ import annotations

from enum import StrEnum


class UpdateStrategy(StrEnum):
    """How new replicas take over from old ones; the names are those of the contract."""

    AVAILABILITY_PRESERVING = "AVAILABILITY_PRESERVING"
    """All new ones are ready before an old one goes: for a while there are twice as many."""
    RESOURCE_PRESERVING = "RESOURCE_PRESERVING"
    """One old one goes, then a new one comes in its place: never more than the deployment has."""
