"""The first secrets of an installation: one API token for the administrator and one for each service."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard_kit import api_tokens

ADMINISTRATOR = "admin"
SERVICES = ("catalog", "artifact", "governance", "inference", "gateway")


def ensure_tokens(folder: Path) -> None:
    """Write `<name>.token`, mode 0600, for the administrator and every service that has none yet."""
    for name in (ADMINISTRATOR, *SERVICES):
        path = folder / f"{name}.token"
        if not path.exists():
            write_secret(path, api_tokens.generate())


def write_secret(path: Path, secret: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    temporary.replace(path)
