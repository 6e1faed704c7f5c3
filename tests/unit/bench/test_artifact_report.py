"""What the artifact benchmark calls its goals."""

from __future__ import annotations

import pytest

from tests.bench.artifact_report import Results, goals, size_name


@pytest.mark.parametrize(
    ("size", "name"),
    [(2**30, "1gib"), (20 * 2**30, "20gib"), (32 * 2**20, "32mib"), (1000, "1000b"), (0, "0b")],
)
def test_sizes_have_names(size: int, name: str) -> None:
    assert size_name(size) == name


def test_goals_are_named_by_what_was_measured() -> None:
    results = Results()
    for name in ("floor large", "upload large", "download large"):
        results.add(name, 1.0)
    names = [goal.name for goal in goals(results, 64 * 2**20)]
    assert names == ["artifacts-local-upload-64mib", "artifacts-local-download-64mib"]
