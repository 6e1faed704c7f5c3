"""Where tests put what they write: in memory where the system has room there, as most of it lives for a second."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 6 * 2**30
ON_DISK = "/tmp"


def _in_memory() -> bool:
    """Return whether this is Linux with enough memory for files, in which programs may be started."""
    if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return False
    return not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES


SHORT = str(_MEMORY) if _in_memory() else ON_DISK
"""A folder with a short name, for folders that hold sockets: their paths may have about a hundred characters."""


def use() -> None:
    """Have this process, and all that it starts, make temporary folders there, unless TMPDIR says where."""
    if SHORT != ON_DISK:
        os.environ.setdefault("TMPDIR", SHORT)
        tempfile.tempdir = None  # chosen again
