"""Where logs of predictions go beside the files of replicas, and how far they have come there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NOWHERE = """'{"otlp": false, "parquet": false}'::jsonb"""


def upgrade() -> None:
    # Policies are compared as they are kept: those that are there already get what new ones have.
    op.execute(f"UPDATE deployments SET log_policy = {_NOWHERE} || log_policy")  # noqa: S608 - a constant
    op.execute(f"UPDATE log_switches SET policy = {_NOWHERE} || policy")  # noqa: S608
    op.create_table(
        "log_marks",
        sa.Column("replica_id", sa.Text, sa.ForeignKey("replicas.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("log", sa.Text, primary_key=True),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("read_to", sa.BigInteger, nullable=False),
        sa.Column("begin", sa.BigInteger, nullable=False),
        sa.Column("next_number", sa.BigInteger, nullable=False),
    )
