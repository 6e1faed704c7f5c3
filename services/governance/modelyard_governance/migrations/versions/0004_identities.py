"""Groups, disabled principals, external issuers, limited tokens, several signing keys.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("principals_kind", "principals")
    kinds = "kind IN ('user', 'service_account', 'service', 'group')"
    op.create_check_constraint("principals_kind", "principals", kinds)
    op.add_column("principals", sa.Column("disable_time", sa.DateTime(timezone=True)))
    op.add_column("principals", sa.Column("issuer_id", sa.Text))
    op.add_column("principals", sa.Column("subject", sa.Text))
    op.create_index("principals_subject", "principals", ["issuer_id", "subject"], unique=True)
    op.add_column("tokens", sa.Column("privileges", sa.ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column("tokens", sa.Column("last_use_time", sa.DateTime(timezone=True)))
    op.create_index("grants_principal", "grants", ["principal_id", sa.text('id COLLATE "C"')])
    _groups()
    _issuers()
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("sign_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdraw_time", sa.DateTime(timezone=True)),
    )


def _groups() -> None:
    op.create_table(
        "memberships",
        sa.Column("group_id", sa.Text, sa.ForeignKey("principals.id"), primary_key=True),
        sa.Column("member_id", sa.Text, sa.ForeignKey("principals.id"), primary_key=True),
        sa.Column("issuer_id", sa.Text),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("group_id <> member_id", name="memberships_not_itself"),
    )
    op.create_index("memberships_member", "memberships", ["member_id"])
    op.create_index("memberships_issuer", "memberships", ["issuer_id"])


def _issuers() -> None:
    op.create_table(
        "issuers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("url", sa.Text, nullable=False, unique=True),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("principal_claim", sa.Text, nullable=False),
        sa.Column("principal_prefix", sa.Text, nullable=False),
        sa.Column("groups_claim", sa.Text, nullable=False),
        sa.Column("group_prefix", sa.Text, nullable=False),
        sa.Column("create_principals", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
