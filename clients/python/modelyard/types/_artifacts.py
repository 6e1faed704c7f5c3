"""Artifacts and uploads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class UploadState(StrEnum):
    """Where an upload is in its life."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: relative path with `/`, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Immutable set of files, named by the digest of its manifest."""

    digest: str
    file_count: int = 0
    size: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True)
class MissingBlob:
    """Content the store does not have yet; `offset` says from where to send it."""

    sha256: str
    size: int
    offset: int = 0


class TestOutcome(StrEnum):
    """How an introspection test ended."""

    __test__ = False  # pytest shall not collect it

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class Severity(StrEnum):
    """How bad a finding is: worth knowing, unusual in a model, can do harm, runs code that no model needs."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


class InspectionState(StrEnum):
    """Where an inspection is in its life."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class ScanResult(StrEnum):
    """Result of the scan for harmful content."""

    CLEAN = "CLEAN"
    FOUND = "FOUND"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True, kw_only=True)
class IntrospectionTest:
    """One of OCI's introspection tests of a model artifact; `message` says why it failed or was not run."""

    id: str
    category: str = ""
    description: str = ""
    result: TestOutcome | None = None
    message: str = ""
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that the scanner found in a file; a member of an archive follows after `!`."""

    path: str
    severity: Severity | None = None
    subject: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """What a file is, by its content."""

    path: str
    format: str = ""
    may_run_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found out about an artifact from its files; `tests_json` is as OCI's own validator writes it."""

    artifact_digest: str
    state: InspectionState | None = None
    message: str = ""
    oci: bool = False
    tests: tuple[IntrospectionTest, ...] = ()
    tests_json: str = ""
    scan: ScanResult | None = None
    findings: tuple[Finding, ...] = ()
    scanner: str = ""
    formats: tuple[FileFormat, ...] = ()
    end_time: datetime | None = None

    @property
    def tests_passed(self) -> bool:
        """Whether there are tests, and none failed."""
        return bool(self.tests) and all(test.result is not TestOutcome.FAILED for test in self.tests)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An artifact on its way in."""

    id: str
    model: str = ""
    state: UploadState | None = None
    artifact_digest: str = ""
    missing: tuple[MissingBlob, ...] = ()
    create_time: datetime | None = None
    expire_time: datetime | None = None
    direct: bool = False


@dataclass(frozen=True, kw_only=True)
class SignedUrl:
    """One HTTP request that whoever has it may make until it expires."""

    url: str
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PartUrl:
    """Where to send one part of a blob: `length` bytes from `offset`."""

    number: int
    offset: int
    length: int
    request: SignedUrl


@dataclass(frozen=True, kw_only=True)
class BlobUrls:
    """How to send one blob without passing the service: the parts that are not there yet."""

    sha256: str
    size: int
    parts: tuple[PartUrl, ...] = ()
    expire_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class FileUrl:
    """How to read one file without passing the service; whoever reads it checks size and hash."""

    file: FileEntry
    request: SignedUrl
    expire_time: datetime | None = None
