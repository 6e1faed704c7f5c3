"""What the lists can be filtered and ordered by; docs/filters.md has tables of it, made from here."""

from __future__ import annotations

from sqlalchemy import exists

from modelyard_artifact.inspection_models import Scan
from modelyard_artifact.tables import artifacts, inspections, manifest_files, signatures
from modelyard_kit.filters import Field, FieldType, ListFields

FILES = ListFields(
    {
        "path": Field(FieldType.TEXT, manifest_files.c.path, required=True),
        "size": Field(FieldType.INTEGER, manifest_files.c.size, required=True),
        "sha256": Field(FieldType.TEXT, manifest_files.c.sha256, required=True),
    },
    unique="path",
)

ARTIFACTS = ListFields(
    {
        "digest": Field(FieldType.TEXT, artifacts.c.digest, required=True),
        "size": Field(FieldType.INTEGER, artifacts.c.size, required=True),
        "file_count": Field(FieldType.INTEGER, artifacts.c.file_count, required=True),
        "create_time": Field(FieldType.TIMESTAMP, artifacts.c.create_time, required=True),
        # NULL until the artifact was inspected; `tests` also where there is nothing to test.
        "oci": Field(FieldType.BOOLEAN, inspections.c.oci),
        "scan": Field(FieldType.ENUM, inspections.c.scan, values=tuple(Scan)),
        "tests": Field(FieldType.ENUM, inspections.c.tests, values=("PASSED", "FAILED")),
        # Whether it has a signature, of whatever key: trust is governance's, and comes and goes.
        "signed": Field(
            FieldType.BOOLEAN, exists().where(signatures.c.digest == artifacts.c.digest), required=True
        ),
    },
    unique="digest",
    default_order="create_time desc",
)

LISTS = {"ListFiles": FILES, "ListArtifacts": ARTIFACTS}
"""Fields of each list, by its RPC."""
