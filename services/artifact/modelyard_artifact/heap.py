"""The memory that content goes through, kept from one message to the next."""

from __future__ import annotations

import ctypes
from typing import Final

# Parameters of mallopt(3), and what of the GNU C library its numbers are.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 32 << 20
"""Free memory that a heap keeps at its end. By itself the library gives back everything beyond 2 MiB once messages of 1 MiB have come."""
_LARGEST_BYTES: Final = 32 << 20  # larger than any message of content, and the most that the library takes


def keep_freed() -> bool:
    """Have the GNU C library keep what it frees for the next message, instead of giving it back to the kernel.

    The kernel fills every page that it hands out again with zeros: for each gibibyte received 150,000 page faults, a fifth of the
    processor's time that it takes.

    Returns:
        Whether the library does; others have no such settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all((mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES), mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)))
