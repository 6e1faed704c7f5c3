"""The garbage collector of a process that starts, and then serves."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLD: Final = 10_000
"""Objects between two looks at the youngest ones. Python's own 700 is reached by two or three calls."""


def hold() -> None:
    """Collect nothing until `settle`: what a process loads to start stays, and to look at it again and again takes a sixth of the time."""
    gc.disable()


def settle() -> None:
    """Leave what was loaded and built, which stays to the end, out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
    gc.enable()
