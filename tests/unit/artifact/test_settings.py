"""Settings of the blob store: what is accepted, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard_artifact.app import ArtifactSettings, blob_store
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.blobs.s3 import S3BlobStore


def settings(blobs: str, staging: Path | None = None) -> ArtifactSettings:
    return ArtifactSettings(
        listen="127.0.0.1:0", database="postgresql://x/y", token_file=Path("t"), blobs=blobs, staging=staging
    )


def test_engines(tmp_path: Path) -> None:
    assert isinstance(blob_store(settings(f"file://{tmp_path}/a%20b")), LocalBlobStore)
    assert isinstance(blob_store(settings("s3://bucket/pre/fix", tmp_path)), S3BlobStore)


@pytest.mark.parametrize(
    ("blobs", "says"),
    [
        ("", "file:///"),
        ("/var/lib", "file:///"),
        ("file://var/lib", "three slashes"),
        ("http://x/y", "file:///"),
        ("s3:///prefix", "bucket"),
        ("s3://bucket", "staging"),
    ],
)
def test_mistakes(blobs: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(blobs)
