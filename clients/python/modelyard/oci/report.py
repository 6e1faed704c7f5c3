"""What the introspection tests found, also in the form that OCI's own validator writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelyard.oci.table import MANDATORY_FILES, TABLE


class Result(StrEnum):
    """How a test ended."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class TestResult:
    """One test: id, category and description are those of OCI; `message` says why it failed or was skipped."""

    __test__ = False  # the name is the domain's; pytest shall not collect it

    id: str
    category: str
    description: str
    result: Result
    message: str = ""
    value: str = ""


@dataclass(frozen=True)
class Report:
    """All tests, in OCI's order."""

    tests: tuple[TestResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no test failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[TestResult, ...]:
        """The tests that failed."""
        return tuple(test for test in self.tests if test.result is Result.FAILED)

    def to_oci(self) -> dict[str, dict[str, Any]]:
        """The object that OCI's validator writes to `test_json_output.json`, without its `Final_message`.

        `success` is absent for a test that was not run, as there.
        """
        return {test.id: _entry(test) for test in self.tests}

    def to_json(self) -> str:
        """The same as text; the same for the same files."""
        return json.dumps(self.to_oci(), indent=2, ensure_ascii=False)


def _entry(test: TestResult) -> dict[str, Any]:
    entry: dict[str, Any] = {"category": test.category, "description": test.description}
    if test.category == MANDATORY_FILES:
        entry["key"] = test.id
    # There, every entry has the message of its test, whatever came of it.
    entry["error_msg"] = test.message if test.result is Result.FAILED else TABLE[test.id].message
    if test.result is not Result.SKIPPED:
        entry["success"] = test.result is Result.PASSED
    if test.value:
        entry["value"] = test.value
    return entry
