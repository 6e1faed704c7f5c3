"""Versions by artifact and by commit; a range of creation times without reading the versions themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("model_versions_digest", "model_versions", ["artifact_digest", "model_id"])
    # A hash index takes text of any length; a commit may have 2,000 characters, more than a B-tree takes.
    commit = "provenance ->> 'git_commit'"
    op.create_index(
        "model_versions_commit",
        "model_versions",
        [sa.text(f"({commit})")],
        postgresql_using="hash",
        postgresql_where=sa.text(f"{commit} <> ''"),
    )
    op.drop_index("model_versions_create_time", "model_versions")
    op.create_index(
        "model_versions_create_time",
        "model_versions",
        ["model_id", "create_time"],
        postgresql_include=["number", "state", "delete_time", "id"],
    )
