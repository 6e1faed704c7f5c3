"""One index instead of two finds the files with some content, of one manifest or of all: each costs a third of writing a manifest."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("manifest_files_content", "manifest_files")
    op.drop_index("manifest_files_sha256", "manifest_files")
    op.create_index("manifest_files_content", "manifest_files", ["sha256", "digest"])
