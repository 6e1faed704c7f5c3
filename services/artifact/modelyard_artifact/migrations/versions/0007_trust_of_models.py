"""Trust in a signature belongs to the model whose trust roots gave it: others share its artifact, not its trust roots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signature_trust",
        sa.Column(
            "signature_id", sa.Text, sa.ForeignKey("signatures.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("model_id", sa.Text, primary_key=True),
        sa.Column("trust_root", sa.Text, nullable=False),
        comment="Which trust root vouched for a signature when it came for a model.",
    )
    # For which model it was is not known any more; so none loses what it might have had.
    op.execute(
        "INSERT INTO signature_trust SELECT signatures.id, artifact_models.model_id, signatures.trust_root "
        "FROM signatures JOIN artifact_models USING (digest) WHERE signatures.trust_root <> ''"
    )
    op.drop_column("signatures", "trust_root")
