"""Unpacks an environment that an artifact brings whole, as conda-pack or venv-pack write them, and adds what the replica needs.

Paths inside such an environment are made right by its own `conda-unpack`, for the folder where it lies. So it is never renamed: it is
unpacked under a name of its own and counts only when the wish for it is noted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard_inference.environment_policy import OLDEST
from modelyard_inference.environments import EnvironmentFailed, links, processes, uv
from modelyard_kit.limits import LIMITS

_TELL: Final = "import sys; print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True)
class Archive:
    """An environment in a file of an artifact."""

    path: Path
    """The file."""
    digest: str
    """Of the artifact."""
    name: str
    """Path of the file inside it."""
    python: str
    """Minor version that it must be of; empty for any."""
    requirements: tuple[str, ...]
    """What the replica needs beside."""

    @property
    def id(self) -> str:
        """Return what two equal archives have in common."""
        return hashlib.sha256(json.dumps([self.digest, self.name, self.requirements]).encode()).hexdigest()[
            :32
        ]


async def unpack(archive: Archive, folder: Path, *, seconds: float, packages: Sequence[str]) -> str:
    """Unpack an environment and return its name in `folder`.

    Args:
        archive: what to unpack.
        folder: where environments are.
        seconds: longest time of each step that runs a program.
        packages: import packages of this installation to show in it.

    Raises:
        EnvironmentFailed: it is no archive of an environment, too large, or does not run here.
        OSError: the disk is full, or not ours.
    """
    made = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"{archive.id}-", dir=folder))
    try:
        await asyncio.to_thread(_extract, archive, made)
        python = _python(archive, made)
        fix = made / "bin" / "conda-unpack"
        if fix.is_file():
            await processes.run(
                python, fix, folder=made, seconds=seconds, what=f"conda-unpack of {archive.name}"
            )
        await _check(archive, python, seconds)
        # It may say that only its own tools may add to it: but this copy is ours.
        await uv.run(
            "pip", "install", "--python", python, "--break-system-packages", "--only-binary", ":all:",
            *archive.requirements, folder=made, seconds=seconds,
        )  # fmt: skip
        await asyncio.to_thread(links.show, made, packages)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)
        raise
    return made.name


def _python(archive: Archive, made: Path) -> Path:
    python = made / "bin" / "python"
    if not python.exists():
        raise EnvironmentFailed(
            f"{archive.name} of the artifact has no bin/python that exists on this machine"
        )
    return python


async def _check(archive: Archive, python: Path, seconds: float) -> None:
    printed = await processes.run(
        python, "-I", "-c", _TELL, folder=python.parent, seconds=seconds, what=f"bin/python of {archive.name}"
    )
    version = printed.strip().rpartition("\n")[2]
    if tuple(map(int, version.split("."))) < OLDEST:
        raise EnvironmentFailed(
            f"{archive.name} has Python {version}, and replicas need {OLDEST[0]}.{OLDEST[1]} or later: pack a newer one"
        )
    if archive.python not in ("", version):
        raise EnvironmentFailed(
            f"{archive.name} has Python {version}, and runtime.yaml says {archive.python}"
        )


def _extract(archive: Archive, made: Path) -> None:
    limit, total = LIMITS["environment_bytes"].maximum, 0
    try:
        with tarfile.open(archive.path) as members:
            for member in members:
                total += member.size
                if total > limit:
                    raise EnvironmentFailed(f"{archive.name} holds more than {limit:,} bytes")
                members.extract(member, made, filter="tar")  # nothing outside, not through a link either
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise EnvironmentFailed(f"{archive.name} is no tar archive of an environment: {error}") from error
