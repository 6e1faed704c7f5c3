"""Deployments, their targets, groups, replicas, and the version of the route table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from modelyard_kit import idempotency, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    outbox_tables.create(op)
    idempotency.create(op)
    _deployments()
    _groups()
    op.create_table(
        "route_table",
        sa.Column("only", sa.Boolean, sa.CheckConstraint('"only"'), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO route_table VALUES (true, 1)")


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("schema_id", sa.Text, nullable=False),
        sa.Column("schema_owner_id", sa.Text, nullable=False),
        sa.Column("catalog_id", sa.Text, nullable=False),
        sa.Column("catalog_owner_id", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("max_request_bytes", sa.BigInteger, nullable=False),
        sa.Column("timeout_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_message", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
    )
    op.create_index("deployments_page", "deployments", ["schema_id", "id"])
    op.create_table(
        "targets",
        sa.Column(
            "deployment_id", sa.Text, sa.ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("follows", sa.Boolean, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("wanted", JSONB, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("serving", sa.Text, nullable=False),
        sa.Column("serving_digest", sa.Text, nullable=False),
        sa.Column("serving_weight", sa.Integer, nullable=False),
    )


def _groups() -> None:
    op.create_table(
        "replica_groups",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("deployment_id", sa.Text, sa.ForeignKey("deployments.id"), nullable=False, index=True),
        sa.Column("version", JSONB, nullable=False),
        sa.Column("max_request_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("group_id", sa.Text, sa.ForeignKey("replica_groups.id"), nullable=False),
        sa.Column("deployment_id", sa.Text, sa.ForeignKey("deployments.id"), nullable=False, index=True),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("routed", sa.Boolean, nullable=False),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("process_id", sa.BigInteger, nullable=False),
        sa.Column("process_started", sa.Text, nullable=False),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("start_time", TIME),
        sa.Column("ready_time", TIME),
        sa.Column("not_before", TIME),
        sa.UniqueConstraint("group_id", "ordinal", name="replicas_ordinal"),
    )
