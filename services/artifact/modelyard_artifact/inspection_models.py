"""What is known of an artifact from its files, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from modelyard_kit.auth import Principal


class InspectionState(StrEnum):
    """Where an inspection is in its life."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class Scan(StrEnum):
    """Result of the scan for harmful content."""

    CLEAN = "CLEAN"
    FOUND = "FOUND"
    INCOMPLETE = "INCOMPLETE"


class Severity(StrEnum):
    """How bad a finding is."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


class TestOutcome(StrEnum):
    """How an introspection test ended."""

    __test__ = False

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class IntrospectionTest:
    """One of OCI's introspection tests."""

    id: str
    category: str
    description: str
    result: TestOutcome
    message: str
    value: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the scanner found in a file."""

    path: str
    severity: Severity
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file is."""

    path: str
    format: str
    may_run_code: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """What one inspection found out."""

    oci: bool
    tests: tuple[IntrospectionTest, ...]
    tests_json: str
    scan: Scan
    findings: tuple[Finding, ...]
    scanner: str
    formats: tuple[FileFormat, ...]

    @property
    def tests_passed(self) -> bool | None:
        """Whether no test failed; None where there are no tests."""
        if not self.oci:
            return None
        return all(test.result is not TestOutcome.FAILED for test in self.tests)


@dataclass(frozen=True, slots=True)
class Inspection:
    """The newest inspection of an artifact; `found` is None unless it is DONE."""

    digest: str
    state: InspectionState
    message: str
    found: Findings | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class TestsOutcome:
    """How the tests of an artifact ended; `results` is JSON, `sequence` higher than that of whatever was told of it before."""

    __test__ = False

    digest: str
    passed: bool
    results: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Job:
    """An inspection that this process has taken, for as long as it renews the lease under `owner`."""

    digest: str
    owner: str
    attempts: int
    actor: Principal
    request_id: str
