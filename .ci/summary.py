"""Prints how many tests of each kind ran, and all together, and which files took longest, from pytest's JUnit reports."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

_SLOWEST = 15


def read(report: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yield kind (a folder of `tests`), file, outcome and seconds of each test; an error at set-up or collection is a failure."""
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    for case in ET.parse(report).getroot().iter("testcase"):
        # A file that cannot be collected has a name alone.
        _, kind, *rest = (case.get("classname") or case.get("name") or "").split(".")
        outcome = next((outcomes[part.tag] for part in case if part.tag in outcomes), "passed")
        file = next((part for part in rest if part.startswith("test_")), "")
        yield kind, f"{kind}/{file}", outcome, float(case.get("time") or 0)


def main() -> None:
    """Read every report in the folder named on the command line."""
    counts: Counter[tuple[str, str]] = Counter()
    seconds: Counter[str] = Counter()
    for report in Path(sys.argv[1]).glob("*.xml"):
        for kind, file, outcome, took in read(report):
            counts[kind, outcome] += 1
            seconds[kind] += took
            seconds[file] += took
    kinds = sorted({kind for kind, _ in counts})
    for kind in kinds:
        of_kind = {outcome: n for (one, outcome), n in counts.items() if one == kind}
        print(f"{kind:12} {told(of_kind)}, {seconds.pop(kind):.0f} s")
    print(told(Counter({o: sum(n for (_, one), n in counts.items() if one == o) for _, o in counts})))
    print("longest: " + ", ".join(f"{file} {took:.0f} s" for file, took in seconds.most_common(_SLOWEST)))


def told(counts: Mapping[str, int]) -> str:
    """Return the counts as text."""
    return ", ".join(f"{counts.get(outcome, 0)} {outcome}" for outcome in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    main()
