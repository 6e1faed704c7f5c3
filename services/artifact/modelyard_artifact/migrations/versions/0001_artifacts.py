"""Blobs, manifests, artifacts, uploads."""

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
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        comment="Content that is completely stored; a row is written after the blob store has it.",
    )
    op.create_table(
        "manifest_files",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("path", sa.Text(collation="C"), primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        comment="What a digest means, announced or committed: it can mean nothing else, so it is written once.",
    )
    op.create_index("manifest_files_content", "manifest_files", ["digest", "sha256"])
    op.create_index("manifest_files_sha256", "manifest_files", ["sha256"])
    op.create_table(
        "artifacts",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("file_count", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        comment="Manifests that were committed: every blob of them is stored.",
    )
    op.create_table(
        "artifact_models",
        sa.Column("digest", sa.Text, sa.ForeignKey("artifacts.digest"), primary_key=True),
        sa.Column("model_id", sa.Text, primary_key=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        comment="For which models an artifact was committed.",
    )
    op.create_index("artifact_models_model", "artifact_models", ["model_id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
    )
    still_open = sa.text("state = 'OPEN'")
    op.create_index("uploads_open_by_principal", "uploads", ["principal_id"], postgresql_where=still_open)
    op.create_index("uploads_open_by_age", "uploads", ["update_time"], postgresql_where=still_open)
    op.create_index("uploads_digest", "uploads", ["digest"])


def downgrade() -> None:
    for table in ("uploads", "artifact_models", "artifacts", "manifest_files", "blobs", "requests", "outbox"):
        op.drop_table(table)
