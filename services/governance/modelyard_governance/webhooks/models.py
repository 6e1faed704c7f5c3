"""Webhooks and deliveries, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """Whether a webhook is sent to."""

    ENABLED = "ENABLED"
    PAUSED = "PAUSED"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class EarlierSecret:
    """A secret that was replaced, and until when requests are signed with it too."""

    sealed: bytes
    until: datetime


@dataclass(frozen=True)
class Webhook:
    """A webhook as stored; `cursor` is the last entry of the audit chain that was looked at for it."""

    id: str
    name: str
    url: str
    types: tuple[str, ...]
    resource: str
    state: State
    pause_reason: str
    failures: int
    quiet_until: datetime | None
    creator: str
    create_time: datetime
    cursor: int = 0
    earlier_secrets: tuple[EarlierSecret, ...] = ()

    def wants(self, event_type: str, resource: str) -> bool:
        """Return whether it is to be told of an event about a resource of this name."""
        if self.types and not any(_matches(event_type, wanted) for wanted in self.types):
            return False
        inside = resource.startswith(tuple(f"{self.resource}{sign}" for sign in "./@"))
        return not self.resource or resource == self.resource or inside


def _matches(event_type: str, wanted: str) -> bool:
    return event_type.startswith(wanted[:-1]) if wanted.endswith(".*") else event_type == wanted


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one webhook."""

    id: str
    webhook_id: str
    sequence: int
    event_id: str
    type: str
    state: DeliveryState
    attempts: int
    status_code: int
    error: str
    create_time: datetime
    next_time: datetime | None
    deliver_time: datetime | None


@dataclass(frozen=True)
class Job:
    """A delivery that is this process's to make now, with all that it takes."""

    id: str
    webhook_id: str
    url: str
    sealed_secret: bytes
    earlier_secrets: tuple[EarlierSecret, ...]
    sequence: int
    attempts: int
    failures: int
    canonical_event: str | None


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt; `unreachable` when it was the receiver as a whole, and not this one event."""

    delivered: bool
    status_code: int = 0
    error: str = ""
    unreachable: bool = False
    gone: bool = False


@dataclass(frozen=True)
class CreateWebhook:
    """A wanted webhook."""

    name: str
    url: str
    types: tuple[str, ...]
    resource: str
    request_id: str
    fingerprint: str


@dataclass(frozen=True)
class UpdateWebhook:
    """What to change of a webhook; None where nothing."""

    name: str
    url: str | None = None
    types: tuple[str, ...] | None = None
    resource: str | None = None


@dataclass(frozen=True)
class Replay:
    """What to send again; with neither an id nor a time, all that failed."""

    webhook: str
    delivery_id: str
    since: datetime | None
