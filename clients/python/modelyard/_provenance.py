"""Where a model comes from: git, script, Python and packages. Nothing here can make logging a model fail."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from modelyard.types import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable

_GIT_SECONDS = 5


def capture(packages: Iterable[str]) -> Provenance:
    """The provenance of this process: the git work tree it runs in, its script, its Python, and these packages."""
    root = _git("rev-parse", "--show-toplevel")
    branch = _git("rev-parse", "--abbrev-ref", "HEAD")
    return Provenance(
        git_repository=without_credentials(_git("config", "--get", "remote.origin.url")),
        git_branch="" if branch == "HEAD" else branch,
        git_commit=_git("rev-parse", "HEAD"),
        git_dirty=bool(root) and bool(_git("status", "--porcelain")),
        source=_source(root),
        python_version=platform.python_version(),
        packages={name: version for name in packages if (version := _version(name))},
    )


def without_credentials(address: str) -> str:
    """The address of a repository without user, password or token in it."""
    if "://" not in address:
        return address  # `git@host:path` names the user that everybody uses
    url = urlsplit(address)
    host = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, host, url.path, "", ""))


def _source(root: str) -> str:
    """The script, relative to the work tree; of one outside only its name, not where it lies."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if not main:
        return ""
    path = Path(main).resolve()
    if root and path.is_relative_to(Path(root).resolve()):
        return path.relative_to(Path(root).resolve()).as_posix()
    return path.name


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603  (fixed arguments)
            ["git", *arguments],  # noqa: S607  (the user's own git, wherever it is)
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.decode(errors="replace").strip() if result.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
