"""What the list of files can be filtered and ordered by; docs/filters.md has a table of it, made from here."""

from __future__ import annotations

from modelyard_artifact.tables import manifest_files
from modelyard_kit.filters import Field, FieldType, ListFields

FILES = ListFields(
    {
        "path": Field(FieldType.TEXT, manifest_files.c.path, required=True),
        "size": Field(FieldType.INTEGER, manifest_files.c.size, required=True),
        "sha256": Field(FieldType.TEXT, manifest_files.c.sha256, required=True),
    },
    unique="path",
)

LISTS = {"ListFiles": FILES}
"""Fields of each list, by its RPC."""
