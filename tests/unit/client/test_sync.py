"""Blocking forms of what is asynchronous."""

from __future__ import annotations

import subprocess
import sys

_FAILS_INSIDE_A_LOOP = """
from modelyard._sync import Blocking, streaming

class Source(Blocking):
    @streaming
    async def rows(self):
        for number in range(3):
            yield number

[1 // row for row in Source(None).rows()]
"""


def test_a_program_that_fails_inside_a_loop_over_rows_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FAILS_INSIDE_A_LOOP], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ZeroDivisionError")
