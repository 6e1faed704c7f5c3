"""Tables of the inference service; `migrations/` creates them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from modelyard_kit import idempotency, outbox_tables

metadata = sa.MetaData()

_TIME = TIMESTAMP(timezone=True)


def _ordered(name: str, *columns: str) -> sa.Index:
    """Return the index that serves the last column as filters and orders compare text; see docs/filters.md."""
    return sa.Index(name, *columns, postgresql_ops={columns[-1]: 'COLLATE "C"'})


outbox_tables.outbox_table(metadata)
idempotency.requests_table(metadata)

deployments = sa.Table(
    "deployments",
    metadata,
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
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("update_time", _TIME, nullable=False),
    sa.Column("require_signature", sa.Boolean, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("conditions", JSONB, nullable=False),
    sa.Column("sticky_header", sa.Text, nullable=False),
    sa.Column("rollout_policy", JSONB, nullable=False),
    sa.Column("rollout", JSONB(none_as_null=True)),
    sa.Column("rejection", JSONB(none_as_null=True)),
    sa.Column("resources", JSONB, nullable=False),
    sa.Column("autoscaling", JSONB, nullable=False),
    sa.Column("traffic_limits", JSONB, nullable=False),
    sa.Column("private", sa.Boolean, nullable=False),
    sa.Column("log_policy", JSONB, nullable=False),
    sa.Column("batching", JSONB, nullable=False),
    sa.Column("environment_variables", JSONB, nullable=False),
    sa.Column("environment", JSONB, nullable=False),
    sa.Column("update_strategy", sa.Text, nullable=False),
    _ordered("deployments_order", "id"),
    _ordered("deployments_order_in_schema", "schema_id", "id"),
    _ordered("deployments_name", "name"),
)

revisions = sa.Table(
    "deployment_revisions",
    metadata,
    sa.Column(
        "deployment_id", sa.Text, sa.ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("actor_name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("rolled_back_to", sa.BigInteger, nullable=False),
    sa.Column("settings", JSONB, nullable=False),
    sa.Column("changed_fields", ARRAY(sa.Text), nullable=False),
)

targets = sa.Table(
    "targets",
    metadata,
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
    sa.Column("shadow_percent", sa.Integer, nullable=False),
)

groups = sa.Table(
    "replica_groups",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("deployment_id", sa.Text, sa.ForeignKey("deployments.id"), nullable=False, index=True),
    sa.Column("version", JSONB, nullable=False),
    sa.Column("max_request_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("table_version", sa.BigInteger, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("require_signature", sa.Boolean, nullable=False),
    sa.Column("shadow", sa.Boolean, nullable=False),
    sa.Column("resources", JSONB, nullable=False),
    sa.Column("scale", JSONB(none_as_null=True)),
    sa.Column("batching", JSONB, nullable=False),
    sa.Column("environment_variables", JSONB, nullable=False),
    sa.Column("environment", JSONB, nullable=False),
)

rollout_origins = sa.Table(
    "rollout_origins",
    metadata,
    sa.Column(
        "deployment_id", sa.Text, sa.ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("content", JSONB, nullable=False),
)

shadow_counts = sa.Table(
    "shadow_counts",
    metadata,
    sa.Column("group_id", sa.Text, sa.ForeignKey("replica_groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("mirrored", sa.BigInteger, nullable=False),
    sa.Column("compared", sa.BigInteger, nullable=False),
    sa.Column("different", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("lost", sa.BigInteger, nullable=False),
)

replicas = sa.Table(
    "replicas",
    metadata,
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
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("start_time", _TIME),
    sa.Column("ready_time", _TIME),
    sa.Column("not_before", _TIME),
    sa.Column("signature_state", sa.Text, nullable=False),
    sa.Column("signer", sa.Text, nullable=False),
    sa.Column("trust_root", sa.Text, nullable=False),
    sa.UniqueConstraint("group_id", "ordinal", name="replicas_ordinal"),
    _ordered("replicas_order", "deployment_id", "id"),
)

route_table = sa.Table(
    "route_table",
    metadata,
    sa.Column("only", sa.Boolean, sa.CheckConstraint('"only"'), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)

signature_evidence = sa.Table(
    "signature_evidence",
    metadata,
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
)

# No foreign keys: a note may outlive its deployment.
lineage_notes = sa.Table(
    "lineage_notes",
    metadata,
    sa.Column("deployment_id", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("schema_id", sa.Text, nullable=False),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("told", sa.Boolean, nullable=False),
    sa.Index("lineage_notes_pending", "time", postgresql_where=sa.text("NOT told")),
)

log_switches = sa.Table(
    "log_switches",
    metadata,
    sa.Column("replica_id", sa.Text, sa.ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("process_started", sa.Text, nullable=False),
    sa.Column("policy", JSONB, nullable=False),
)

log_marks = sa.Table(
    "log_marks",
    metadata,
    sa.Column("replica_id", sa.Text, sa.ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("inode", sa.BigInteger, nullable=False),
    sa.Column("read_to", sa.BigInteger, nullable=False),
    sa.Column("begin", sa.BigInteger, nullable=False),
    sa.Column("next_number", sa.BigInteger, nullable=False),
)
