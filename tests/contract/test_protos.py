"""The contracts pass buf's rules and break nothing, and the committed stubs are fresh. Skips nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from .catalogue import PROTOS, ROOT

SCRIPTS = Path(sys.executable).parent


def program(name: str) -> str:
    """A program of this environment, else of the machine."""
    found = shutil.which(name, path=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found, f"{name} is not installed; run `make install`"
    return found


def run(*command: str) -> None:
    """Run a command in the repository; its output is the failure's message."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [program("git"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)


def contracts_of_main(folder: Path) -> Path:
    """The contracts of the main branch: the local one, else the remote one, else what is committed here."""
    for ref in ("main", "origin/main", "HEAD"):
        if git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").returncode == 0:
            archive = git("archive", ref, "protos")
            assert archive.returncode == 0, archive.stderr.decode()
            with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
                tar.extractall(folder, filter="data")
            return folder / "protos"
    pytest.fail("the repository has no commit to compare the contracts with")


def test_buf_lint() -> None:
    run(program("buf"), "lint", str(PROTOS))


def test_buf_format() -> None:
    run(program("buf"), "format", "--diff", "--exit-code", str(PROTOS))


def test_buf_breaking_against_main(tmp_path: Path) -> None:
    run(program("buf"), "breaking", str(PROTOS), "--against", str(contracts_of_main(tmp_path)))


def test_committed_stubs_are_fresh() -> None:
    uv = (program("uv"), "run", "--quiet", "--no-project", "--python", sys.executable, "--script")
    run(*uv, str(PROTOS / "generate.py"), "--check")
