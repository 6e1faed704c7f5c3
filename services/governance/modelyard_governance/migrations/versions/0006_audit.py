"""Checkpoints of the audit chain, where it begins after retention, and which versions an entry is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_checkpoints",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("anchor_sequence", sa.BigInteger, nullable=False),
        sa.Column("anchor_hash", sa.LargeBinary, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
    )
    op.add_column(
        "audit_head", sa.Column("anchor_sequence", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    zeros = sa.text("decode(repeat('00', 32), 'hex')")
    op.add_column(
        "audit_head", sa.Column("anchor_hash", sa.LargeBinary, nullable=False, server_default=zeros)
    )
    _retention()
    _subjects()


def _retention() -> None:
    """Let entries go that lie before the recorded beginning, and no others."""
    op.execute("DROP TRIGGER audit_append_only ON audit")
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
    op.execute(
        """
        CREATE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF OLD.sequence > (SELECT anchor_sequence FROM audit_head) THEN
            RAISE EXCEPTION 'the audit chain is append-only: % is refused', TG_OP;
          END IF;
          RETURN OLD;
        END $$
        """
    )
    op.execute("CREATE TRIGGER audit_keep BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_keep()")


def _subjects() -> None:
    # The version itself, both ends of a moved alias, what a deployment serves; each once.
    op.execute(
        """
        CREATE FUNCTION audit_subjects(event jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
          SELECT array_agg(DISTINCT found) FROM (
            SELECT coalesce(nullif(event #>> '{resource,id}', ''), event #>> '{resource,name}')
            WHERE event #>> '{resource,type}' = 'RESOURCE_TYPE_MODEL_VERSION'
            UNION ALL
            SELECT part #>> '{}' FROM (
              SELECT jsonb_path_query(event, '$.data.*.version_id')
              UNION ALL SELECT jsonb_path_query(event, '$.data.*.model_version_id')
              UNION ALL SELECT jsonb_path_query(event, '$.data.*.targets[*].model_version')
            ) AS parts(part)
          ) AS all_found(found) WHERE found <> ''
        $$
        """
    )
    op.execute(
        "ALTER TABLE audit ADD subjects text[] GENERATED ALWAYS AS "
        "(audit_subjects(canonical_event\\:\\:jsonb)) STORED"
    )
    op.create_index("audit_subjects", "audit", ["subjects"], postgresql_using="gin")


def downgrade() -> None:
    op.drop_column("audit", "subjects")
    op.execute("DROP FUNCTION audit_subjects")
    op.execute("DROP TRIGGER audit_keep ON audit")
    op.execute("DROP FUNCTION audit_keep")
    op.execute("DROP TRIGGER audit_append_only ON audit")
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
    op.drop_column("audit_head", "anchor_hash")
    op.drop_column("audit_head", "anchor_sequence")
    op.drop_table("audit_checkpoints")
