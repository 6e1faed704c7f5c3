"""Runs a program that builds, for a limited time, and keeps the end of what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from modelyard_inference.environments import EnvironmentFailed
from modelyard_kit import PREFIX

TAIL_BYTES: Final = 2_000
_READ_BYTES: Final = 65_536
_HIDDEN: Final = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")


async def run(program: str | Path, *arguments: str | Path, folder: Path, seconds: float, what: str) -> str:
    """Run a program and return what it printed.

    It gets this service's environment variables, but for settings of Modelyard and those that choose a Python.

    Args:
        program: to run.
        arguments: of the program.
        folder: to run in.
        seconds: longest time it may take.
        what: what it is called in a refusal.

    Raises:
        EnvironmentFailed: it failed, or took too long; with the end of its output.
    """
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(PREFIX) and key not in _HIDDEN
    }
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=folder,
            env={**environment, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFailed(f"{what} cannot be run: {error}") from error
    assert process.stdout is not None  # noqa: S101  it is a pipe
    printed = b""
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
            while await process.stdout.read(_READ_BYTES):
                pass  # a pipe that nobody empties is never seen to close, and asyncio waits for that
            await process.wait()
    if code < 0:
        raise EnvironmentFailed(f"{what} was ended by {signal.Signals(-code).name}\n{_tail(printed)}")
    if code:
        raise EnvironmentFailed(f"{what} failed with exit status {code}\n{_tail(printed)}")
    return printed.decode(errors="replace")


def _tail(printed: bytes) -> str:
    return printed[-TAIL_BYTES:].decode(errors="replace").strip()
