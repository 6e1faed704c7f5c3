"""The store as a whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StorageStatistics:
    """What is stored, in numbers and bytes.

    `logical_size` is the size of all artifacts as if nothing were shared, `stored_size` what the store holds;
    `deduplication_ratio` compares the former with the blobs that artifacts use. What is unreferenced goes by itself.
    """

    artifact_count: int = 0
    logical_size: int = 0
    blob_count: int = 0
    stored_size: int = 0
    deduplication_ratio: float = 1.0
    open_upload_count: int = 0
    unreferenced_blob_count: int = 0
    unreferenced_size: int = 0


@dataclass(frozen=True, kw_only=True)
class DamagedBlob:
    """Content that is not what its name says: `lost`, `wrong size` or `wrong content`, and artifacts that use it."""

    sha256: str
    size: int = 0
    problem: str = ""
    artifact_digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerifyProgress:
    """How far a verification is, in blobs and bytes, and what it found damaged since it last said so."""

    verified_count: int = 0
    verified_size: int = 0
    total_count: int = 0
    total_size: int = 0
    damaged: tuple[DamagedBlob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was deleted, or would be: artifacts, blobs, and bytes of the blobs."""

    artifact_count: int = 0
    blob_count: int = 0
    size: int = 0
