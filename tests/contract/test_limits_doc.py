"""docs/limits.md says what the table of limits says, and so does GetLimits; each limit is tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from modelyard_catalog import render
from modelyard_kit.limits import LIMITS

from .catalogue import ROOT


def test_the_document_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_limits.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_get_limits_answers_the_whole_table_by_name() -> None:
    told = render.limits()
    assert [limit.name for limit in told] == sorted(LIMITS)
    assert {limit.name: limit.maximum for limit in told} == {
        name: limit.maximum for name, limit in LIMITS.items()
    }
    assert all(limit.unit and limit.description for limit in told)


def test_every_limit_is_tried_by_a_test() -> None:
    """At its maximum and at one more; a test that does so takes both from the table, by the name of the limit."""
    tests = ROOT / "tests"
    tried: set[str] = set()
    for path in tests.rglob("test_*.py"):
        if path.parent != tests / "contract":
            tried |= _texts(path)
    assert set(LIMITS) <= tried, "write a test of its maximum, and of one more"


def _texts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
