"""What is in the wheel: the import packages, whole, and nothing else."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from .conftest import ROOT, build

PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["packages"]


def packaged(wheel: Path) -> set[str]:
    """Files of the import packages in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    return {name for name in names if ".dist-info/" not in name}


def source_files() -> set[str]:
    """What an editable install can import: files of the packages that git tracks or would track, by import path."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [path for path in listing.stdout.splitlines() if (ROOT / path).is_file()]
    parents = {package: str(PurePosixPath(package).parent) for package in PACKAGES}
    return {
        path.removeprefix(f"{parent}/")
        for path in paths
        for package, parent in parents.items()
        if path.startswith(f"{package}/")
    }


def test_top_level_names_are_ours(wheel: Path) -> None:
    top = {PurePosixPath(name).parts[0] for name in packaged(wheel)}
    assert top == {PurePosixPath(package).name for package in PACKAGES}
    assert all(name.startswith("modelyard") for name in top)


def test_the_wheel_holds_what_the_editable_install_holds(wheel: Path) -> None:
    assert packaged(wheel) == source_files()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(wheel: Path, package: str) -> None:
    name = PurePosixPath(package).name
    assert {f"{name}/__init__.py", f"{name}/py.typed"} <= packaged(wheel)


def test_the_licence_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())


def test_the_wheel_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as tar:
        tar.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert packaged(build("wheel", source, tmp_path / "wheel")) == packaged(wheel)
