"""Builds one environment."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelyard_inference.environments import EnvironmentFailed, links, uv
from modelyard_inference.environments.wishes import Wish
from modelyard_kit.faults import failpoint

PARTIAL: Final = ".partial-"
LOCK: Final = "lock.txt"
# Wheels only: building from source would run whatever code a package brings, here in the service.
_WHEELS: Final = ("--only-binary", ":all:")


async def build(wish: Wish, folder: Path, *, seconds: float, packages: Sequence[str]) -> str:
    """Build the environment that a wish asks for, unless it is there, and return its key.

    Args:
        wish: what it must hold.
        folder: where environments are.
        seconds: longest time of each of uv's steps.
        packages: import packages of this installation to show in it.

    Raises:
        EnvironmentFailed: it cannot be built.
        OSError: the disk is full, or not ours.
    """
    partial = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=PARTIAL, dir=folder))
    try:
        interpreter = await _interpreter(wish.python, partial)
        lock = await _lock(wish, interpreter, partial, seconds)
        key = hashlib.sha256(f"{wish.python}\n{lock}".encode()).hexdigest()[:32]
        if not (folder / key).is_dir():
            made = partial / "env"
            await uv.run(
                "venv", "--relocatable", "--python", interpreter, made, folder=partial, seconds=seconds
            )
            await uv.run(
                "pip", "sync", "--python", made / "bin" / "python", "--require-hashes", *_WHEELS, LOCK,
                folder=partial, seconds=seconds,
            )  # fmt: skip
            await asyncio.to_thread(links.show, made, packages)
            await asyncio.to_thread(shutil.copyfile, partial / LOCK, made / LOCK)
            await failpoint("inference.environment.built")
            await asyncio.to_thread(_publish, made, folder / key)
        return key
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)


async def _interpreter(python: str, partial: Path) -> str:
    if python == ".".join(map(str, sys.version_info[:2])):
        return sys.executable
    try:
        found = await uv.run("python", "find", "--no-project", python, folder=partial, seconds=60.0)
    except EnvironmentFailed as error:
        raise EnvironmentFailed(
            f"Python {python}, which is asked for, is not on this machine: install it where uv finds it, or ask for "
            f"{sys.version_info[0]}.{sys.version_info[1]} (python_version of the deployment's environment, "
            f"INFERENCE_PYTHON_VERSION in the artifact's runtime.yaml)\n{error}"
        ) from error
    return found.strip().splitlines()[-1]


async def _lock(wish: Wish, interpreter: str, partial: Path, seconds: float) -> str:
    """Resolve to exact versions with hashes; the packages that the index has today."""
    (partial / "requirements.in").write_text("\n".join(wish.requirements) + "\n", "utf-8")
    await uv.run(
        "pip", "compile", "--python", interpreter, "--generate-hashes", "--no-header", "--no-annotate", *_WHEELS,
        "--no-emit-index-url", "--output-file", LOCK, "requirements.in", folder=partial, seconds=seconds,
    )  # fmt: skip
    return (partial / LOCK).read_text("utf-8")


def _publish(made: Path, final: Path) -> None:
    """Give a complete environment its name for good."""
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():  # else somebody else built the same
            raise
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
