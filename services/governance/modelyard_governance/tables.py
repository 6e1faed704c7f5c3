"""The tables of governance, as its store sees them; `migrations/` makes them."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from modelyard_kit import idempotency
from modelyard_kit.outbox import outbox_table

metadata = MetaData()
outbox = outbox_table(metadata)
requests = idempotency.requests_table(metadata)

principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # Revision of the permissions at which its grants last changed.
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("kind IN ('user', 'service_account', 'service')", name="principals_kind"),
    Index("principals_revision", "revision"),
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
    Index("tokens_principal", "principal_id", "id"),
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

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("resource_id", Text, nullable=False),
    Column("canonical_event", Text, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("sequence >= 1", name="audit_sequence"),
    Index("audit_resource", "resource_id", "sequence"),
)

# One row: where the chain ends, so that a cut-off end is noticed. Its lock puts appends in one order.
audit_head = Table(
    "audit_head",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("singleton", name="audit_head_one_row"),
)
