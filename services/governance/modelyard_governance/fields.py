"""What each list of governance can be filtered and ordered by; docs/filters.md has a table of it, made from here."""

from __future__ import annotations

from sqlalchemy import func, select

from modelyard_governance.models import ApprovalState
from modelyard_governance.tables import (
    audit,
    cards,
    grants,
    issuers,
    memberships,
    policies,
    principals,
    reviews,
    shares,
    standings,
    tokens,
    webhook_deliveries,
    webhooks,
)
from modelyard_kit.access import Effect, Privilege, ResourceType
from modelyard_kit.filters import AnyField, Field, FieldType, ListFields, SetField


def _text(column: object) -> Field:
    return Field(FieldType.TEXT, column, required=True)  # type: ignore[arg-type]


PRINCIPALS = ListFields(
    {
        "name": _text(principals.c.name),
        "id": _text(principals.c.id),
        "kind": Field(
            FieldType.ENUM,
            func.upper(principals.c.kind),
            ("USER", "SERVICE_ACCOUNT", "SERVICE", "GROUP"),
            required=True,
        ),
        "display_name": _text(principals.c.display_name),
        "create_time": Field(FieldType.TIMESTAMP, principals.c.create_time, required=True),
        "disable_time": Field(FieldType.TIMESTAMP, principals.c.disable_time),
    },
    unique="name",
)

MEMBER = principals.alias("member")
"""The member of a membership, beside the group."""

MEMBERSHIPS = ListFields(
    {
        "group": _text(principals.c.name),
        "member": _text(MEMBER.c.name),
        "create_time": Field(FieldType.TIMESTAMP, memberships.c.create_time, required=True),
        "id": _text(principals.c.name + ":" + MEMBER.c.name),
    },
    unique="id",
)

ISSUERS = ListFields(
    {
        "name": _text(issuers.c.name),
        "url": _text(issuers.c.url),
        "create_time": Field(FieldType.TIMESTAMP, issuers.c.create_time, required=True),
    },
    unique="name",
)

TOKENS = ListFields(
    {
        "id": _text(tokens.c.id),
        "description": _text(tokens.c.description),
        "create_time": Field(FieldType.TIMESTAMP, tokens.c.create_time, required=True),
        "expire_time": Field(FieldType.TIMESTAMP, tokens.c.expire_time),
        "revoke_time": Field(FieldType.TIMESTAMP, tokens.c.revoke_time),
        "last_use_time": Field(FieldType.TIMESTAMP, tokens.c.last_use_time),
    },
    unique="id",
)

GRANTS = ListFields(
    {
        "id": _text(grants.c.id),
        "principal": _text(principals.c.name),
        "principal_id": _text(grants.c.principal_id),
        "privilege": Field(FieldType.ENUM, grants.c.privilege, tuple(Privilege), required=True),
        "effect": Field(FieldType.ENUM, grants.c.effect, tuple(Effect), required=True),
        "create_time": Field(FieldType.TIMESTAMP, grants.c.create_time, required=True),
    },
    unique="id",
)

PRINCIPAL_GRANTS = ListFields(
    {
        "id": _text(grants.c.id),
        "privilege": Field(FieldType.ENUM, grants.c.privilege, tuple(Privilege), required=True),
        "effect": Field(FieldType.ENUM, grants.c.effect, tuple(Effect), required=True),
        "resource": _text(grants.c.resource_name),
        "resource_type": Field(FieldType.ENUM, grants.c.resource_type, tuple(ResourceType), required=True),
        "resource_id": _text(grants.c.resource_id),
        "create_time": Field(FieldType.TIMESTAMP, grants.c.create_time, required=True),
    },
    unique="id",
)

POLICIES = ListFields(
    {
        "id": _text(policies.c.id),
        "resource": _text(policies.c.resource_name),
        "resource_id": _text(policies.c.resource_id),
        "resource_type": Field(FieldType.ENUM, policies.c.resource_type, tuple(ResourceType), required=True),
        "required_approvals": Field(FieldType.INTEGER, policies.c.required_approvals, required=True),
        "update_time": Field(FieldType.TIMESTAMP, policies.c.update_time, required=True),
    },
    unique="id",
    default_order="resource",
)

APPROVALS = ListFields(
    {
        "id": _text(standings.c.version_id),
        "model_version": _text(standings.c.name),
        "model": _text(func.split_part(standings.c.name, "/", 1)),
        "state": Field(FieldType.ENUM, standings.c.state, tuple(ApprovalState), required=True),
        "approvals": Field(FieldType.INTEGER, standings.c.approvals, required=True),
        "required_approvals": Field(FieldType.INTEGER, standings.c.required_approvals, required=True),
        "author_id": _text(standings.c.author_id),
        "reviewer": SetField(
            select(reviews.c.reviewer_name).where(reviews.c.version_id == standings.c.version_id)
        ),
        "review_time": Field(FieldType.TIMESTAMP, standings.c.review_time, required=True),
    },
    unique="id",
)

_AUDIT: dict[str, AnyField] = {
    "sequence": Field(FieldType.INTEGER, audit.c.sequence, required=True),
    "id": _text(audit.c.event_id),
    "type": _text(audit.c.type),
    "time": Field(FieldType.TIMESTAMP, audit.c.time, required=True),
    "actor": _text(audit.c.actor),
    "actor_id": _text(audit.c.actor_id),
    "resource": _text(audit.c.resource),
    "resource_id": _text(audit.c.resource_id),
    "resource_type": Field(FieldType.ENUM, audit.c.resource_type, tuple(ResourceType), required=True),
    "request_id": _text(audit.c.request_id),
}
# A chain has the order of its links and no other.
AUDIT = ListFields(_AUDIT, unique="sequence", orders=("sequence",))

CARDS = ListFields(
    {
        "revision": Field(FieldType.INTEGER, cards.c.revision, required=True),
        "author": _text(cards.c.author_name),
        "author_id": _text(cards.c.author_id),
        "comment": _text(cards.c.comment),
        "create_time": Field(FieldType.TIMESTAMP, cards.c.create_time, required=True),
    },
    unique="revision",
)

WEBHOOKS = ListFields(
    {
        "name": _text(webhooks.c.name),
        "id": _text(webhooks.c.id),
        "url": _text(webhooks.c.url),
        "resource": _text(webhooks.c.resource),
        "state": Field(FieldType.ENUM, webhooks.c.state, ("ENABLED", "PAUSED"), required=True),
        "failures": Field(FieldType.INTEGER, webhooks.c.failures, required=True),
        "creator": _text(webhooks.c.creator),
        "create_time": Field(FieldType.TIMESTAMP, webhooks.c.create_time, required=True),
    },
    unique="name",
)

_delivery_states = ("PENDING", "DELIVERED", "FAILED")
WEBHOOK_DELIVERIES = ListFields(
    {
        "sequence": Field(FieldType.INTEGER, webhook_deliveries.c.sequence, required=True),
        "id": _text(webhook_deliveries.c.id),
        "event_id": _text(webhook_deliveries.c.event_id),
        "type": _text(webhook_deliveries.c.type),
        "state": Field(FieldType.ENUM, webhook_deliveries.c.state, _delivery_states, required=True),
        "attempts": Field(FieldType.INTEGER, webhook_deliveries.c.attempts, required=True),
        "status_code": Field(FieldType.INTEGER, webhook_deliveries.c.status_code, required=True),
        "create_time": Field(FieldType.TIMESTAMP, webhook_deliveries.c.create_time, required=True),
        "next_attempt_time": Field(FieldType.TIMESTAMP, webhook_deliveries.c.next_time),
        "deliver_time": Field(FieldType.TIMESTAMP, webhook_deliveries.c.deliver_time),
    },
    unique="sequence",
)

SHARES = ListFields(
    {
        "name": _text(shares.c.name),
        "id": _text(shares.c.id),
        "recipient": _text(shares.c.recipient),
        "creator": _text(shares.c.creator),
        "create_time": Field(FieldType.TIMESTAMP, shares.c.create_time, required=True),
        "update_time": Field(FieldType.TIMESTAMP, shares.c.update_time, required=True),
    },
    unique="name",
)

LISTS = {
    "ListPrincipals": PRINCIPALS,
    "ListTokens": TOKENS,
    "ListMemberships": MEMBERSHIPS,
    "ListIssuers": ISSUERS,
    "ListGrants": GRANTS,
    "ListPrincipalGrants": PRINCIPAL_GRANTS,
    "ListPolicies": POLICIES,
    "ListApprovals": APPROVALS,
    "ListAuditEntries": AUDIT,
    "ListActivity": AUDIT,
    "ListModelCardRevisions": CARDS,
    "ListWebhooks": WEBHOOKS,
    "ListWebhookDeliveries": WEBHOOK_DELIVERIES,
    "ListShares": SHARES,
}
"""Fields of each list, by its RPC."""
