"""Conditions of gates and what came of them, and overrides, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from modelyard_governance.models import GatedAction, Policy, Version
from modelyard_kit.access import Link

Facts = Mapping[str, Any]
"""What expressions see; docs/policies.md tells what is in it."""


class Evidence(Protocol):
    """Collects the facts about a version."""

    async def facts(self, version: Version) -> Facts:
        """Return what is known of a version at the moment.

        Raises:
            NotFound: there is no such version.
            PeerUnavailable: a service that knows cannot be reached.
        """


class CardEvidence(Protocol):
    """Knows the model cards."""

    async def evidence(self, version: Link) -> Facts:
        """Return what is known of the card of a version at the moment."""


@dataclass(frozen=True)
class ConditionResult:
    """What came of one condition: whether it is met, and if not why."""

    name: str
    met: bool
    problem: str = ""


@dataclass(frozen=True)
class Override:
    """Lets one version pass one gate for a while."""

    id: str
    version: Link
    action: GatedAction
    aliases: tuple[str, ...]
    reason: str
    principal_id: str
    principal: str
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True)
class OverrideGate:
    """A wanted override."""

    reference: str
    action: GatedAction
    aliases: tuple[str, ...]
    reason: str
    lifetime: timedelta


@dataclass(frozen=True)
class Explanation:
    """What a gate would say and why; `gated` tells whether the policy holds back this action at all."""

    allowed: bool
    policy: Policy | None
    gated: bool
    conditions: tuple[ConditionResult, ...]
    facts: Facts
    override: Override | None
