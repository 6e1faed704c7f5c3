"""What the artifact service keeps, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

CHUNK_BYTES = 1 << 20
"""Most bytes of one chunk, on the wire and out of a blob store."""
MAX_WHOLE_BLOBS = 1_000
"""Most blobs in one piece of an upload."""


# What there is thousands of is made, compared and hashed in half the time as a NamedTuple.
class Blob(NamedTuple):
    """Content, named by what it is."""

    sha256: str
    size: int


class FileEntry(NamedTuple):
    """One file of an artifact. The path is a label: it never names anything on the server's disk."""

    path: str
    size: int
    sha256: str

    @property
    def blob(self) -> Blob:
        """Its content."""
        return Blob(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact in byte order of their paths, and the digest that names them."""

    digest: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Sum of the file sizes in bytes."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Artifact:
    """An immutable set of files that was committed."""

    digest: str
    file_count: int
    size: int
    create_time: datetime


class UploadState(StrEnum):
    """Where an upload is in its life."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True, slots=True)
class Upload:
    """An artifact on its way in, for one model, by one principal."""

    id: str
    model_id: str
    model: str
    principal_id: str
    digest: str
    state: UploadState
    create_time: datetime
    update_time: datetime


class MissingBlob(NamedTuple):
    """Content still to be sent, from `offset` on."""

    blob: Blob
    offset: int


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """An upload and what it still waits for."""

    upload: Upload
    missing: Sequence[MissingBlob]
    expire_time: datetime | None
    direct: bool


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """One HTTP request that whoever holds it may make."""

    url: str
    method: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartUrl:
    """Where to send one part of a blob."""

    number: int
    offset: int
    length: int
    request: SignedUrl


@dataclass(frozen=True, slots=True)
class BlobUrls:
    """Where to send the parts of a blob that the object store does not have yet."""

    blob: Blob
    parts: Sequence[PartUrl]
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class FileUrl:
    """Where to read a file from the object store."""

    file: FileEntry
    request: SignedUrl
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class FilePage:
    """Part of a manifest, and the token of the next part ("" after the last)."""

    digest: str
    files: Sequence[FileEntry]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the catalog knows it at this moment."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A model version as the catalog knows it at this moment; the digest is empty until it is READY."""

    id: str
    name: str
    state: str
    digest: str


class Standing(StrEnum):
    """Whether a signature is trusted, as it is shown."""

    TRUSTED = "TRUSTED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    NO_LONGER = "NO_LONGER"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of an artifact, as a model sees it: `trust_root` vouches for it there, or did when it came."""

    id: str
    digest: str
    signer: str
    standing: Standing
    trust_root: str
    bundle: str
    create_time: datetime
