"""A wheel built from this tree and clean environments that it is installed into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command without this environment's Python settings; its output is the failure's message."""
    done = attempt(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


def attempt(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    # Wide, so that help texts are not broken in the middle of what a test looks for.
    environment = kept | {"COLUMNS": "200", "NO_COLOR": "1", "UV_PYTHON_DOWNLOADS": "never"}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )


def uv() -> str:
    """The uv of this environment, else of the machine."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("uv", path=path)
    assert found, "uv is not installed; run `make install`"
    return found


def build(kind: str, source: Path, target: Path) -> Path:
    """Build the wheel or sdist of a source tree with the hatchling of this environment."""
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", target, cwd=source)
    (built,) = target.iterdir()
    return built


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of this repository."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its Python in an empty folder."""
        return run(self.python, *arguments, cwd=self.folder)

    def attempt(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs in an empty folder, whatever comes of it."""
        return attempt(self.folder / "bin" / program, *arguments, cwd=self.folder)


def environment(folder: Path, *install: str | Path) -> Environment:
    """Make an environment and install into it from the ordinary index."""
    run(uv(), "venv", "--quiet", "--python", sys.executable, folder)
    made = Environment(folder)
    run(uv(), "pip", "install", "--quiet", "--python", made.python, *install)
    return made


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def client_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install modelyard` gives, at the pinned versions."""
    pins = ROOT / "requirements" / "lock.txt"
    return environment(tmp_path_factory.mktemp("client") / "venv", wheel, "--constraint", pins)


@pytest.fixture(scope="session")
def lowest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The client with the lowest versions that pyproject.toml allows."""
    return environment(tmp_path_factory.mktemp("lowest") / "venv", wheel, "--resolution", "lowest-direct")
