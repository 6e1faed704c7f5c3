"""Makes the first secrets of an installation in a folder, once: an API token for the administrator and every service.

`installation/` holds all of them and is for governance alone; every other process mounts `<name>/`, with its own token.
"""

from __future__ import annotations

import sys
from pathlib import Path

from modelyard_suite.secrets import SERVICES, ensure_tokens, write_secret


def make_secrets(folder: Path) -> None:
    """Make what is missing below `folder`; what is there stays."""
    installation = folder / "installation"
    installation.mkdir(mode=0o700, exist_ok=True)
    ensure_tokens(installation)
    for name in SERVICES:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        token = (installation / f"{name}.token").read_text(encoding="utf-8")
        write_secret(folder / name / f"{name}.token", token.strip())


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]))
