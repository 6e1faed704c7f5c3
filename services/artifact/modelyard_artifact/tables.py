"""The tables of the artifact service."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from modelyard_kit.idempotency import requests_table
from modelyard_kit.outbox_tables import outbox_table

metadata = MetaData()

outbox = outbox_table(metadata)
requests = requests_table(metadata)

# One row, made by whoever asks for it first.
installation = Table(
    "installation",
    metadata,
    Column("one", Boolean, CheckConstraint("one"), primary_key=True, server_default=true()),
    Column("id", Text, nullable=False),
    Column("moves", Integer, nullable=False, server_default="0"),
    comment="Which installation this is, and how often its content has moved; the mark of its blob store says the same.",
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # Was found damaged and thrown away: not stored until an upload sends it again.
    Column("damaged", Boolean, nullable=False, server_default=false()),
    comment="Content that is completely stored; a row is written after the blob store has it.",
)

manifest_files = Table(
    "manifest_files",
    metadata,
    Column("digest", Text, primary_key=True),
    # C: ordered by bytes, as the manifest is.
    Column("path", Text(collation="C"), primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("manifest_files_content", "sha256", "digest"),
    comment="What a digest means, announced or committed: it can mean nothing else, so it is written once.",
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("file_count", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # NULL while a reference is known.
    Column("unreferenced_since", DateTime(timezone=True), server_default=func.now()),
    # When the catalog was last asked whether versions have it.
    Column("check_time", DateTime(timezone=True), server_default=text("'-infinity'"), nullable=False),
    Index("artifacts_check", "check_time"),
    Index(
        "artifacts_unreferenced",
        "unreferenced_since",
        postgresql_where=text("unreferenced_since IS NOT NULL"),
    ),
    comment="Manifests that were committed: every blob of them is stored.",
)

artifact_references = Table(
    "artifact_references",
    metadata,
    Column("digest", Text, ForeignKey("artifacts.digest"), primary_key=True),
    Column("model_version_id", Text, primary_key=True),
    Column("create_time", DateTime(timezone=True), nullable=False),
    comment="Versions that have, or are about to get, an artifact.",
)

signatures = Table(
    "signatures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, ForeignKey("artifacts.digest", ondelete="CASCADE"), nullable=False),
    Column("signer", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Index("signatures_digest", "digest"),
    comment="OpenSSF model signatures of artifacts.",
)

# Models that share an artifact share its signatures, but not the trust roots that count for them.
signature_trust = Table(
    "signature_trust",
    metadata,
    Column("signature_id", Text, ForeignKey("signatures.id", ondelete="CASCADE"), primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("trust_root", Text, nullable=False),
    comment="Which trust root vouched for a signature when it came for a model.",
)

condemned_blobs = Table(
    "condemned_blobs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    comment="Content that no manifest names: it is being deleted unless an upload announces it.",
)

artifact_models = Table(
    "artifact_models",
    metadata,
    Column("digest", Text, ForeignKey("artifacts.digest"), primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Index("artifact_models_model", "model_id"),
    comment="For which models an artifact was committed.",
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("principal_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("update_time", DateTime(timezone=True), nullable=False),
    Index("uploads_open_by_principal", "principal_id", postgresql_where=text("state = 'OPEN'")),
    Index("uploads_open_by_age", "update_time", postgresql_where=text("state = 'OPEN'")),
    Index("uploads_digest", "digest"),
)

TESTS_SEQUENCE = Sequence("inspections_sequence", metadata=metadata)

inspections = Table(
    "inspections",
    metadata,
    Column("digest", Text, ForeignKey("artifacts.digest", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("message", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Who works on it, and until when nobody else may; renewed while the work goes on.
    Column("lease_owner", Text),
    Column("lease_until", DateTime(timezone=True)),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("request_time", DateTime(timezone=True), nullable=False),
    Column("end_time", DateTime(timezone=True)),
    Column("oci", Boolean),
    # PASSED or FAILED; NULL where there are no tests.
    Column("tests", Text),
    Column("scan", Text),
    Column("scanner", Text, nullable=False, server_default=""),
    Column("tests_json", Text, nullable=False, server_default=""),
    # Tests, findings and formats, as they are shown.
    Column("details", JSONB),
    # Another one whenever the catalog is to be told how the tests ended, and the one that it was last told.
    Column(
        "sequence", BigInteger, TESTS_SEQUENCE, server_default=TESTS_SEQUENCE.next_value(), nullable=False
    ),
    Column("told_sequence", BigInteger, nullable=False, server_default="0"),
    Index("inspections_pending", "request_time", postgresql_where=text("state = 'PENDING'")),
    Index(
        "inspections_to_tell",
        "sequence",
        postgresql_where=text("tests IS NOT NULL AND sequence <> told_sequence"),
    ),
    comment="What was found out about each artifact from its files, and what is still to be found out.",
)
