"""The history of deployments, and what each is waiting for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("conditions", JSONB, nullable=False, server_default="[]"))
    op.alter_column("deployments", "conditions", server_default=None)
    op.create_table(
        "deployment_revisions",
        sa.Column(
            "deployment_id", sa.Text, sa.ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("create_time", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("rolled_back_to", sa.BigInteger, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
    )
    # History begins with what is there; nobody knows any more who made it so.
    op.execute(
        """
        INSERT INTO deployment_revisions
        SELECT d.id, d.revision, CASE d.revision WHEN 1 THEN 'CREATED' ELSE 'UPDATED' END, '', '', '', d.update_time, 0,
            jsonb_build_object(
                'description', d.description, 'replicas', d.replicas, 'max_request_bytes', d.max_request_bytes,
                'timeout_ms', d.timeout_ms, 'require_signature', d.require_signature, 'owner_id', d.owner_id,
                'active', d.active, 'targets', (
                    SELECT jsonb_agg(jsonb_build_object(
                        'reference', t.reference, 'weight', t.weight, 'version_id', t.wanted->>'id',
                        'model_id', t.wanted->>'model_id', 'model_version', t.wanted->>'name'
                    ) ORDER BY t.position)
                    FROM targets t WHERE t.deployment_id = d.id
                )
            )
        FROM deployments d WHERE d.state <> 'DELETING'
        """
    )
