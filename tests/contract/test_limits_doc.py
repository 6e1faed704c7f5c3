"""docs/limits.md says what the table of limits says, and so does GetLimits."""

from __future__ import annotations

import subprocess
import sys

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
