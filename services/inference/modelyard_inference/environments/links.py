"""Shows this installation's own packages in an environment; see docs/adr/0009."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Final

PACKAGES: Final = ("modelyard", "modelyard_kit", "modelyard_inference")
"""Import packages of this installation that a replica runs."""


def show(environment: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Link packages into an environment, and tell their version there; what it has of another release of them goes."""
    site = next((environment / "lib").glob("python3*/site-packages"))
    for package in packages:
        spec = util.find_spec(package)
        assert spec is not None  # noqa: S101  they are what this process runs
        assert spec.origin is not None  # noqa: S101
        if (site / package).is_dir():
            shutil.rmtree(site / package)
        (site / package).symlink_to(Path(spec.origin).parent, target_is_directory=True)
    for other in site.glob("modelyard-*.dist-info"):
        shutil.rmtree(other)
    version = metadata.version("modelyard")
    told = site / f"modelyard-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: modelyard\nVersion: {version}\n", "utf-8")
    (told / "INSTALLER").write_text("modelyard\n", "utf-8")
