"""Runs uv, which resolves, downloads and installs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Final

from modelyard_inference.environments import EnvironmentFailed
from modelyard_kit import PREFIX

TAIL_BYTES: Final = 2_000
_READ_BYTES: Final = 65_536


async def run(*arguments: str | Path, folder: Path, seconds: float) -> str:
    """Run uv and return what it printed.

    It runs with this service's environment, so with the index, proxy and cache that the operator set for uv; but never with
    settings of Modelyard, nor with a Python of its own download.

    Args:
        arguments: of uv.
        folder: to run in.
        seconds: longest time it may take.

    Raises:
        EnvironmentFailed: it is not installed, failed, or took too long; with the end of its output.
    """
    process = await asyncio.create_subprocess_exec(
        program(),
        *map(str, arguments),
        cwd=folder,
        env=_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  it is a pipe
    printed = b""
    what = f"uv {' '.join(map(str, arguments[:2]))}"
    try:
        async with asyncio.timeout(seconds):
            while chunk := await process.stdout.read(_READ_BYTES):
                printed = (printed + chunk)[-_READ_BYTES:]
            code = await process.wait()
    except TimeoutError as error:
        raise EnvironmentFailed(f"{what} took longer than {seconds:g} s\n{_tail(printed)}") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code:
        raise EnvironmentFailed(f"{what} failed\n{_tail(printed)}")
    return printed.decode(errors="replace")


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


def _environment() -> dict[str, str]:
    ours = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX) and key not in ours}
    return {**kept, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


def _tail(printed: bytes) -> str:
    return printed[-TAIL_BYTES:].decode(errors="replace").strip()
