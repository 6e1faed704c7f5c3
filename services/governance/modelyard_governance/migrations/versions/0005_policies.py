"""Policies with a group of approvers, expiry and conditions; overrides of gates.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("policies", sa.Column("approver_group_id", sa.Text, sa.ForeignKey("principals.id")))
    op.add_column("policies", sa.Column("approval_lifetime", sa.Interval))
    op.add_column("policies", sa.Column("conditions", JSONB, nullable=False, server_default="[]"))
    op.create_index("policies_order", "policies", [sa.text('resource_name COLLATE "C"')])
    op.add_column("standings", sa.Column("expire_time", sa.DateTime(timezone=True)))
    expiring = sa.text("expire_time IS NOT NULL")
    op.create_index("standings_expire", "standings", ["expire_time"], postgresql_where=expiring)
    op.create_table(
        "gate_overrides",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("version_name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("aliases", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("principal_id", sa.Text, sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("gate_overrides_version", "gate_overrides", ["version_id", "expire_time"])
