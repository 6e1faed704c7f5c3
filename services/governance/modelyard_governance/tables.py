"""The tables of governance, as its store sees them; `migrations/` makes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from modelyard_kit import idempotency
from modelyard_kit.outbox_tables import outbox_table

metadata = MetaData()

# Taken from the event by the database itself, so that no column can say anything but what was hashed.
_EVENT_COLUMNS = {
    "type": "{type}",
    "actor": "{actorName}",
    "actor_id": "{actorId}",
    "resource": "{resource,name}",
    "request_id": "{requestId}",
}


def _of_event() -> list[Column[Any]]:
    """Return the columns that repeat parts of an event for filters."""
    texts = {
        name: f"coalesce(canonical_event::json #>> '{path}', '')" for name, path in _EVENT_COLUMNS.items()
    }
    kind = "lower(replace(coalesce(canonical_event::json #>> '{resource,type}', ''), 'RESOURCE_TYPE_', ''))"
    time = "audit_time(canonical_event::json ->> 'time')"
    return [
        *(Column(name, Text, Computed(sql, persisted=True), nullable=False) for name, sql in texts.items()),
        Column("resource_type", Text, Computed(kind, persisted=True), nullable=False),
        Column("time", DateTime(timezone=True), Computed(time, persisted=True)),
        # Ids of the versions an event is about, and names of those it tells of by name alone.
        Column("subjects", ARRAY(Text), Computed("audit_subjects(canonical_event::jsonb)", persisted=True)),
    ]


outbox = outbox_table(metadata)


def _ordered(name: str, *columns: str) -> Index:
    """Return the index that serves the last column as filters and orders compare text; see docs/filters.md."""
    return Index(name, *columns, postgresql_ops={columns[-1]: 'COLLATE "C"'})


requests = idempotency.requests_table(metadata)

principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # Revision of the permissions at which its grants or groups last changed.
    Column("revision", BigInteger, nullable=False),
    Column("disable_time", DateTime(timezone=True)),
    # Who it is to an external issuer, if it comes from one.
    Column("issuer_id", Text),
    Column("subject", Text),
    CheckConstraint("kind IN ('user', 'service_account', 'service', 'group')", name="principals_kind"),
    Index("principals_revision", "revision"),
    Index("principals_subject", "issuer_id", "subject", unique=True),
    _ordered("principals_order", "name"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    # The id inside the secret's text, by which an exchange finds the row.
    Column("lookup", Text, nullable=False, unique=True),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("description", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    # Made from a file of the installation, and replaced with it.
    Column("bootstrap", Boolean, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("revoke_time", DateTime(timezone=True)),
    # The only privileges that it gives; none means all of its principal.
    Column("privileges", ARRAY(Text), nullable=False, server_default="{}"),
    # To the minute.
    Column("last_use_time", DateTime(timezone=True)),
    Index("tokens_principal", "principal_id", "id"),
    _ordered("tokens_order", "principal_id", "id"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("group_id", Text, ForeignKey("principals.id"), primary_key=True),
    Column("member_id", Text, ForeignKey("principals.id"), primary_key=True),
    # The issuer whose tokens say so; NULL when somebody here did.
    Column("issuer_id", Text),
    Column("create_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("group_id <> member_id", name="memberships_not_itself"),
    Index("memberships_member", "member_id"),
    Index("memberships_issuer", "issuer_id"),
)

issuers = Table(
    "issuers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False, unique=True),
    Column("audience", Text, nullable=False),
    Column("principal_claim", Text, nullable=False),
    Column("principal_prefix", Text, nullable=False),
    Column("groups_claim", Text, nullable=False),
    Column("group_prefix", Text, nullable=False),
    Column("create_principals", Boolean, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    # The private key, encrypted under one derived from the key file; NULL for the key in that file itself.
    Column("sealed", LargeBinary),
    Column("sign_time", DateTime(timezone=True), nullable=False),
    Column("withdraw_time", DateTime(timezone=True)),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("privilege", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    # What the resource was called when it was granted; decisions use the id alone.
    Column("resource_name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("principal_id", "resource_id", "privilege", "effect", name="grants_once"),
    CheckConstraint("effect IN ('ALLOW', 'DENY')", name="grants_effect"),
    Index("grants_resource", "resource_id", "id"),
    _ordered("grants_principal", "principal_id", "id"),
    _ordered("grants_order", "resource_id", "id"),
)

# One row: the revision of all permissions. Its lock puts changes in one order.
permissions = Table(
    "permissions",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("singleton", name="permissions_one_row"),
)

policies = Table(
    "policies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False, unique=True),
    Column("resource_name", Text, nullable=False),
    Column("required_approvals", Integer, nullable=False),
    Column("allow_self_approval", Boolean, nullable=False),
    Column("protected_aliases", ARRAY(Text), nullable=False),
    Column("protect_deployments", Boolean, nullable=False),
    Column("update_time", DateTime(timezone=True), nullable=False),
    Column("approver_group_id", Text, ForeignKey("principals.id")),
    Column("approval_lifetime", Interval),
    # [{"name": …, "expression": …}], in their order.
    Column("conditions", JSONB, nullable=False, server_default="[]"),
    _ordered("policies_order", "resource_name"),
    CheckConstraint("required_approvals >= 1", name="policies_required_approvals"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("version_id", Text, primary_key=True),
    Column("reviewer_id", Text, ForeignKey("principals.id"), primary_key=True),
    Column("reviewer_name", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("verdict IN ('APPROVE', 'REJECT')", name="reviews_verdict"),
)

gate_overrides = Table(
    "gate_overrides",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version_id", Text, nullable=False),
    Column("version_name", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("reason", Text, nullable=False),
    Column("principal_id", Text, ForeignKey("principals.id"), nullable=False),
    Column("principal", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Index("gate_overrides_version", "version_id", "expire_time"),
)

trust_roots = Table(
    "trust_roots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_type", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    # What the resource was called when it was put there; decisions use the id alone.
    Column("resource_name", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("pem", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("create_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("resource_id", "name", name="trust_roots_once"),
)

# Where each version stands that was ever reviewed: what lists show, and what the catalog is told. Gates ask the reviews themselves.
standings = Table(
    "standings",
    metadata,
    Column("version_id", Text(collation="C"), primary_key=True),
    # Empty until the catalog was asked; see `listed`.
    Column("model_id", Text, nullable=False),
    Column("schema_id", Text, nullable=False),
    Column("catalog_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("author_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("approvals", Integer, nullable=False),
    Column("required_approvals", Integer, nullable=False),
    # Of the last review.
    Column("review_time", DateTime(timezone=True), nullable=False),
    # When the next of its approvals expires.
    Column("expire_time", DateTime(timezone=True)),
    # Whether the catalog has it: not while it is deleted.
    Column("listed", Boolean, nullable=False),
    # Changes of `state`, and how many of them the catalog knows.
    Column("sequence", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    # Reasons to look at it again (a policy, a rename), how many of them were seen to, and whether one wants the catalog asked.
    Column("marks", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("look_up", Boolean, nullable=False),
    CheckConstraint("state IN ('PENDING', 'APPROVED', 'REJECTED')", name="standings_state"),
    Index("standings_model", "model_id"),
    Index("standings_schema", "schema_id"),
    Index("standings_catalog", "catalog_id"),
    Index("standings_undelivered", "version_id", postgresql_where=text("delivered < sequence")),
    Index("standings_expire", "expire_time", postgresql_where=text("expire_time IS NOT NULL")),
    Index("standings_marked", "version_id", postgresql_where=text("seen < marks")),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("resource_id", Text, nullable=False),
    Column("canonical_event", Text, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    *_of_event(),
    CheckConstraint("sequence >= 1", name="audit_sequence"),
    Index("audit_resource", "resource_id", "sequence"),
    Index("audit_type", "type", "sequence"),
    Index("audit_actor", "actor", "sequence"),
    Index("audit_time", "time"),
    Index("audit_subjects", "subjects", postgresql_using="gin"),
)

# One row: where the chain ends, so that a cut-off end is noticed. Its lock puts appends in one order.
audit_head = Table(
    "audit_head",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # The entry before the first that is kept; 0 and zeros until retention drops some.
    Column("anchor_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column(
        "anchor_hash", LargeBinary, nullable=False, server_default=text("decode(repeat('00', 32), 'hex')")
    ),
    CheckConstraint("singleton", name="audit_head_one_row"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("anchor_sequence", BigInteger, nullable=False),
    Column("anchor_hash", LargeBinary, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signature", Text, nullable=False),
)

cards = Table(
    "cards",
    metadata,
    Column("version_id", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    # As `cards.content.dump` writes it.
    Column("content", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("author_id", Text, nullable=False),
    Column("author_name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("types", ARRAY(Text), nullable=False),
    Column("resource", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("pause_reason", Text, nullable=False),
    # Attempts that failed since one did not, and until when it is left alone for that.
    Column("failures", Integer, nullable=False),
    Column("quiet_until", DateTime(timezone=True)),
    Column("creator", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # The last entry of the audit chain that was looked at for it.
    Column("cursor", BigInteger, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    # Those before it, newest first: `sealed`, and `until` when they count.
    Column("earlier_secrets", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    CheckConstraint("state IN ('ENABLED', 'PAUSED')", name="webhooks_state"),
    _ordered("webhooks_order", "name"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # When it is due; while it is being tried, the end of the lease.
    Column("next_time", DateTime(timezone=True)),
    Column("deliver_time", DateTime(timezone=True)),
    CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name="webhook_deliveries_state"),
    UniqueConstraint("webhook_id", "sequence", name="webhook_deliveries_once"),
    Index("webhook_deliveries_due", "webhook_id", "sequence", postgresql_where=text("state = 'PENDING'")),
    Index("webhook_deliveries_done", "create_time", postgresql_where=text("state <> 'PENDING'")),
)

shares = Table(
    "shares",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    # Type, id and name of the time of each member, and ids of principals and groups.
    Column("members", JSONB, nullable=False),
    Column("exporters", ARRAY(Text), nullable=False),
    Column("creator", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("update_time", DateTime(timezone=True), nullable=False),
    _ordered("shares_order", "name"),
)
