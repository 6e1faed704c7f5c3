"""Runs uv, which resolves, downloads and installs."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelyard_inference.environments import EnvironmentFailed, processes


async def run(*arguments: str | Path, folder: Path, seconds: float) -> str:
    """Run uv and return what it printed.

    It runs with this service's environment variables, so with the index, proxy and cache that the operator set for uv; but never with
    a Python of its own download.

    Args:
        arguments: of uv.
        folder: to run in.
        seconds: longest time it may take.

    Raises:
        EnvironmentFailed: it is not installed, failed, or took too long; with the end of its output.
    """
    what = f"uv {' '.join(map(str, arguments[:2]))}"
    return await processes.run(program(), *arguments, folder=folder, seconds=seconds, what=what)


def program() -> str:
    """Return the path of uv: the one of this installation, or one on the PATH.

    Raises:
        EnvironmentFailed: there is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise EnvironmentFailed("building environments needs uv: pip install 'modelyard[environments]'")
    return found
