"""Files with secrets that the service makes itself at its first start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


class UnusableSecretError(Exception):
    """A file of the installation does not hold the secret that belongs there."""


def create_once(path: Path, content: bytes) -> None:
    """Make a file that its owner alone may read, whole and on disk, unless there is one.

    Several processes may start at once: a link fails where another one was first, so nobody ever sees half a secret, or two.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
