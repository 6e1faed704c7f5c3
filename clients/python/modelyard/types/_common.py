"""What all services speak of: resources and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class ResourceType(StrEnum):
    """Kind of thing a grant, an event or a link is about."""

    SYSTEM = "SYSTEM"
    CATALOG = "CATALOG"
    SCHEMA = "SCHEMA"
    MODEL = "MODEL"
    MODEL_VERSION = "MODEL_VERSION"
    DEPLOYMENT = "DEPLOYMENT"
    ARTIFACT = "ARTIFACT"
    PRINCIPAL = "PRINCIPAL"
    TOKEN = "TOKEN"  # noqa: S105  (a kind of resource, not a secret)
    UPLOAD = "UPLOAD"
    POLICY = "POLICY"
    TRUST_ROOT = "TRUST_ROOT"
    ISSUER = "ISSUER"
    SIGNING_KEY = "SIGNING_KEY"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One thing for good: the id never changes, the name is what it was called at the time."""

    type: ResourceType | None = None
    id: str = ""
    name: str = ""
    owner_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to what, by whom and when."""

    id: str
    type: str
    resource: Resource = Resource()
    actor_id: str = ""
    actor_name: str = ""
    time: datetime | None = None
    request_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
