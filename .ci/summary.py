"""Prints how many tests of each kind ran, and all together, from pytest's JUnit reports."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Count:
    """Outcomes of one or several test runs."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read(report: Path) -> Count:
    """Count the outcomes in one report; an error at set-up or collection is a failure."""
    suites = ET.parse(report).getroot().iter("testsuite")
    total = Count()
    for suite in suites:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        total += Count(int(suite.get("tests", 0)) - failed - skipped, failed, skipped)
    return total


def main() -> None:
    """Read every report in the folder named on the command line."""
    counts = {report.stem: read(report) for report in sorted(Path(sys.argv[1]).glob("*.xml"))}
    for kind, count in counts.items():
        print(f"{kind:12} {count}")
    print(sum(counts.values(), Count()))


if __name__ == "__main__":
    main()
