"""Prints how many tests of each kind ran, and all together, from pytest's JUnit reports."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def read(report: Path) -> Counter[tuple[str, str]]:
    """Count tests by kind, which is a folder of `tests`, and outcome; an error at set-up or collection is a failure."""
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    found: Counter[tuple[str, str]] = Counter()
    for case in ET.parse(report).getroot().iter("testcase"):
        # A file that cannot be collected has a name alone.
        _, kind, *_ = (case.get("classname") or case.get("name") or "").split(".")
        found[kind, next((outcomes[part.tag] for part in case if part.tag in outcomes), "passed")] += 1
    return found


def main() -> None:
    """Read every report in the folder named on the command line."""
    reports = Path(sys.argv[1]).glob("*.xml")
    counts = sum(map(read, reports), Counter())
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:12} {told({outcome: n for (one, outcome), n in counts.items() if one == kind})}")
    print(told(sum((Counter({outcome: n}) for (_, outcome), n in counts.items()), Counter())))


def told(counts: Mapping[str, int]) -> str:
    """Return the counts as text."""
    return ", ".join(f"{counts.get(outcome, 0)} {outcome}" for outcome in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    main()
