"""Principals, tokens, grants, policies, reviews and the audit chain.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from modelyard_kit import idempotency, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    outbox_tables.create(op)
    idempotency.create(op)
    _identities()
    _grants()
    _approvals()
    _audit()


def _identities() -> None:
    op.create_table(
        "principals",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.CheckConstraint("kind IN ('user', 'service_account', 'service')", name="principals_kind"),
    )
    op.create_index("principals_revision", "principals", ["revision"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("lookup", sa.Text, nullable=False, unique=True),
        sa.Column("principal_id", sa.Text, sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True)),
        sa.Column("revoke_time", sa.DateTime(timezone=True)),
    )
    op.create_index("tokens_principal", "tokens", ["principal_id", "id"])


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("principal_id", sa.Text, sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("privilege", sa.Text, nullable=False),
        sa.Column("effect", sa.Text, nullable=False),
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("resource_name", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("principal_id", "resource_id", "privilege", "effect", name="grants_once"),
        sa.CheckConstraint("effect IN ('ALLOW', 'DENY')", name="grants_effect"),
    )
    op.create_index("grants_resource", "grants", ["resource_id", "id"])
    op.create_table(
        "permissions",
        sa.Column("singleton", sa.Boolean, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.CheckConstraint("singleton", name="permissions_one_row"),
    )
    op.execute("INSERT INTO permissions (singleton, revision) VALUES (true, 0)")


def _approvals() -> None:
    op.create_table(
        "policies",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False, unique=True),
        sa.Column("resource_name", sa.Text, nullable=False),
        sa.Column("required_approvals", sa.Integer, nullable=False),
        sa.Column("allow_self_approval", sa.Boolean, nullable=False),
        sa.Column("protected_aliases", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("protect_deployments", sa.Boolean, nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("required_approvals >= 1", name="policies_required_approvals"),
    )
    op.create_table(
        "reviews",
        sa.Column("version_id", sa.Text, primary_key=True),
        sa.Column("reviewer_id", sa.Text, sa.ForeignKey("principals.id"), primary_key=True),
        sa.Column("reviewer_name", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("verdict IN ('APPROVE', 'REJECT')", name="reviews_verdict"),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text, nullable=False, unique=True),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("canonical_event", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("sequence >= 1", name="audit_sequence"),
    )
    op.create_index("audit_resource", "audit", ["resource_id", "sequence"])
    op.create_table(
        "audit_head",
        sa.Column("singleton", sa.Boolean, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("singleton", name="audit_head_one_row"),
    )
    op.execute(
        "INSERT INTO audit_head (singleton, sequence, hash) VALUES (true, 0, decode(repeat('00', 32), 'hex'))"
    )
    # The chain shows tampering; this stops the tampering that goes through SQL by mistake.
    op.execute(
        """
        CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'the audit chain is append-only: % is refused', TG_OP;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
