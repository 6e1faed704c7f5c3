"""Files that another process watches: never half-written, never readable by others."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

OWNER_ONLY = 0o700


def prepare_directory(path: Path) -> None:
    """Make the folder, readable by its owner only.

    Raises:
        PermissionError: it exists and belongs to somebody else.
    """
    path.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(OWNER_ONLY)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old content or the new, also after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
