"""Shares, and what comes of bundles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelyard.types._common import Resource


@dataclass(frozen=True, kw_only=True)
class Share:
    """What may leave the installation as bundles, and the names of those who may export it."""

    id: str = ""
    name: str
    description: str = ""
    recipient: str = ""
    members: tuple[Resource, ...] = ()
    exporters: tuple[str, ...] = ()
    creator: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True)
class BundleSummary:
    """A bundle that was written: its digest, and how many versions and bytes of blobs it holds."""

    digest: str
    versions: int
    blob_bytes: int


@dataclass(frozen=True)
class ImportedVersion:
    """What a version of a bundle is called at its origin and here; `created` tells whether this import made it."""

    origin: str
    version: str
    created: bool
