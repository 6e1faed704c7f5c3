"""What the catalog is to be told of introspection tests; of those that ended before, everything."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SEQUENCE = sa.Sequence("inspections_sequence")


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(_SEQUENCE))
    following = sa.Column("sequence", sa.BigInteger, server_default=_SEQUENCE.next_value(), nullable=False)
    op.add_column("inspections", following)
    told = sa.Column("told_sequence", sa.BigInteger, server_default="0", nullable=False)
    op.add_column("inspections", told)
    op.create_index(
        "inspections_to_tell",
        "inspections",
        ["sequence"],
        postgresql_where=sa.text("tests IS NOT NULL AND sequence <> told_sequence"),
    )
