"""Shares, and what is asked of bundles, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard_kit.access import Chain, Link, ResourceType


@dataclass(frozen=True)
class Share:
    """A share as stored; members are links of the time when they were added, exporters ids of principals and groups."""

    id: str
    name: str
    description: str
    recipient: str
    members: tuple[Link, ...]
    exporters: tuple[str, ...]
    creator: str
    create_time: datetime
    update_time: datetime

    def holds(self, model: Chain) -> bool:
        """Return whether a model is a member, or lies in a schema that is one."""
        ids = {member.id for member in self.members}
        return any(link.id in ids for link in model)


@dataclass(frozen=True)
class WantedShare:
    """The content of a wanted share, its members and exporters by name; None where nothing is to be changed."""

    description: str | None = None
    recipient: str | None = None
    members: tuple[tuple[ResourceType, str], ...] | None = None
    exporters: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CreateShare:
    """Make a share."""

    name: str
    content: WantedShare
    request_id: str
    fingerprint: str


@dataclass(frozen=True)
class SignBundle:
    """Sign the manifest of a bundle, because a share allows it, or without one because the caller manages its models."""

    manifest: str
    share: str


@dataclass(frozen=True)
class Origin:
    """A version as its catalog tells it, as JSON without what is about anything else."""

    id: str
    model_id: str
    number: int
    artifact_digest: str
    document: Mapping[str, Any]
