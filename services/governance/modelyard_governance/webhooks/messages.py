"""Messages of webhooks."""

from __future__ import annotations

import re

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import webhook_pb2
from modelyard_governance.webhooks.models import CreateWebhook, Delivery, Replay, UpdateWebhook, Webhook
from modelyard_kit import idempotency, limits
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.protos import moment, timestamp

_NAME = re.compile(r"[a-z0-9_-]{1,63}")
_TYPE = re.compile(r"[a-z_]+(\.[a-z_]+)*(\.\*)?")
_LENGTH = 1_024
_CHANGEABLE = ("url", "types", "resource")

_Named = (
    pb.GetWebhookRequest
    | pb.RotateWebhookSecretRequest
    | pb.PauseWebhookRequest
    | pb.ResumeWebhookRequest
    | pb.DeleteWebhookRequest
)


def parse_create(request: pb.CreateWebhookRequest) -> CreateWebhook:
    """Return the wanted webhook."""
    wanted = request.webhook
    if not _NAME.fullmatch(wanted.name):
        raise InvalidField("webhook.name", "must be 1 to 63 lower-case letters, digits, '_' or '-'")
    content = pb.CreateWebhookRequest()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return CreateWebhook(
        name=wanted.name,
        url=wanted.url,
        types=_types(wanted),
        resource=_resource(wanted),
        request_id=request.request_id,
        fingerprint=idempotency.fingerprint(content.SerializeToString(deterministic=True)),
    )


def parse_update(request: pb.UpdateWebhookRequest) -> UpdateWebhook:
    """Return what to change."""
    paths, can = tuple(request.update_mask.paths), f"these can be changed: {', '.join(_CHANGEABLE)}"
    if not paths:
        raise InvalidField("update_mask", f"name the fields to change; {can}")
    for path in paths:
        if path not in _CHANGEABLE:
            raise InvalidField("update_mask", f"{path[:80]!r} cannot be changed; {can}")
    wanted = request.webhook
    return UpdateWebhook(
        name=_known_name(request.name, "name"),
        url=wanted.url if "url" in paths else None,
        types=_types(wanted) if "types" in paths else None,
        resource=_resource(wanted) if "resource" in paths else None,
    )


def _types(wanted: webhook_pb2.Webhook) -> tuple[str, ...]:
    limits.check("webhook_types", len(wanted.types))
    for wanted_type in wanted.types:
        if len(wanted_type) > _LENGTH or not _TYPE.fullmatch(wanted_type):
            raise InvalidField(
                "webhook.types",
                f"{wanted_type[:80]!r} is no type of event: catalog.alias.moved, or catalog.alias.*",
            )
    return tuple(sorted(set(wanted.types)))


def _resource(wanted: webhook_pb2.Webhook) -> str:
    if len(wanted.resource) > _LENGTH or "\0" in wanted.resource:
        raise InvalidField(
            "webhook.resource", "is no name of a catalog, schema, model, version or deployment"
        )
    return wanted.resource


def parse_name(request: _Named) -> str:
    """Return the name of a webhook."""
    return _known_name(request.name, "name")


def parse_log(request: pb.ListWebhookDeliveriesRequest) -> str:
    """Return the name of the webhook whose log is wanted."""
    return _known_name(request.webhook, "webhook")


def parse_replay(request: pb.ReplayWebhookDeliveriesRequest) -> Replay:
    """Return what to send again."""
    since = None
    if request.HasField("since_time"):
        if request.delivery_id:
            raise InvalidField("since_time", "stands alone: give either it or delivery_id")
        try:
            since = moment(request.since_time)
        except (ValueError, OverflowError) as error:
            raise InvalidField("since_time", "is not a time between the years 1 and 9999") from error
    if len(request.delivery_id) > _LENGTH or "\0" in request.delivery_id:
        raise NotFound("webhook delivery", request.delivery_id[:80])
    return Replay(_known_name(request.webhook, "webhook"), request.delivery_id, since)


def _known_name(name: str, field: str) -> str:
    """Return the name of a webhook that should exist; one of the wrong form cannot."""
    if not name:
        raise InvalidField(field, "is required: the name of a webhook")
    if not _NAME.fullmatch(name):
        raise NotFound("webhook", name[:80])
    return name


def webhook_out(webhook: Webhook) -> webhook_pb2.Webhook:
    """Return the message of a webhook."""
    return webhook_pb2.Webhook(
        id=webhook.id,
        name=webhook.name,
        url=webhook.url,
        types=webhook.types,
        resource=webhook.resource,
        state=webhook_pb2.Webhook.State.Value(f"STATE_{webhook.state}"),
        pause_reason=webhook.pause_reason,
        failures=webhook.failures,
        quiet_until_time=timestamp(webhook.quiet_until),
        creator=webhook.creator,
        create_time=timestamp(webhook.create_time),
        earlier_secrets_expire_time=timestamp(
            max((each.until for each in webhook.earlier_secrets), default=None)
        ),
    )


def delivery_out(delivery: Delivery) -> webhook_pb2.WebhookDelivery:
    """Return the message of a delivery."""
    return webhook_pb2.WebhookDelivery(
        id=delivery.id,
        sequence=delivery.sequence,
        event_id=delivery.event_id,
        type=delivery.type,
        state=webhook_pb2.WebhookDelivery.State.Value(f"STATE_{delivery.state}"),
        attempts=delivery.attempts,
        status_code=delivery.status_code,
        error=delivery.error,
        create_time=timestamp(delivery.create_time),
        next_attempt_time=timestamp(delivery.next_time),
        deliver_time=timestamp(delivery.deliver_time),
    )
