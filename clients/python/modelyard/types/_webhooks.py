"""Webhooks and their deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class WebhookState(StrEnum):
    """Whether a webhook is sent to."""

    ENABLED = "ENABLED"
    PAUSED = "PAUSED"


class WebhookDeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An address that is told of events."""

    id: str = ""
    name: str
    url: str = ""
    types: tuple[str, ...] = ()
    resource: str = ""
    state: WebhookState | None = None
    pause_reason: str = ""
    failures: int = 0
    quiet_until_time: datetime | None = None
    creator: str = ""
    create_time: datetime | None = None
    earlier_secrets_expire_time: datetime | None = None


@dataclass(frozen=True)
class NewWebhook:
    """A webhook with a secret just made. `secret` is shown only here; keep it."""

    webhook: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class WebhookDelivery:
    """One event on its way to one webhook; `event_id` is the `webhook-id` header of every attempt."""

    id: str
    sequence: int = 0
    event_id: str = ""
    type: str = ""
    state: WebhookDeliveryState | None = None
    attempts: int = 0
    status_code: int = 0
    error: str = ""
    create_time: datetime | None = None
    next_attempt_time: datetime | None = None
    deliver_time: datetime | None = None
