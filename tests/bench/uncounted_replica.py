"""A replica that counts nothing, to measure what counting costs: `python -m tests.bench.uncounted_replica --config FILE`."""

from __future__ import annotations

import sys
from typing import Any

from modelyard_inference.replica.__main__ import run
from modelyard_inference.replica.statistics import Statistics
from modelyard_kit import garbage


def _nothing(*_: Any, **__: Any) -> None:
    """Count nothing."""


if __name__ == "__main__":
    for name in ("answered", "computed", "failed"):
        setattr(Statistics, name, _nothing)
    garbage.hold()
    sys.exit(run())
