"""A conda environment made here, and packed by conda's own conda-pack, so that tests need neither conda nor a channel.

It holds what conda leaves of a package with a Python in it: files in which the folder of the environment stands for the placeholder, as
the package cache has them, and `conda-meta`, which tells of both.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PLACEHOLDER: Final = "/opt/" + "placehold_" * 25
"""What stands for the folder in a package: long, so that a folder fits into its place in a binary file."""
TEXT: Final = "etc/tool.conf"
BINARY: Final = "lib/libtool.so"


def conda_environment(folder: Path) -> Path:
    """Make an environment in a folder and return where it is."""
    package, made = folder / "pkgs" / "python", folder / "conda"
    _write_package(package)
    files = sorted(path for path in package.rglob("*") if path.is_symlink() or path.is_file())
    shutil.copytree(package, made, symlinks=True)
    for name in (TEXT, BINARY):
        content = (made / name).read_bytes()
        (made / name).write_bytes(content.replace(PLACEHOLDER.encode(), str(made).encode()))
    (package / "info").mkdir()
    told = [_told(file, str(file.relative_to(package))) for file in files]
    (package / "info" / "paths.json").write_text(json.dumps({"paths": told}))
    version = platform.python_version()
    paths = [each["_path"] for each in told]
    record = {
        "name": "python",
        "version": version,
        "files": paths,
        "link": {"source": str(package)},
        "url": "",
    }
    (made / "conda-meta").mkdir()
    (made / "conda-meta" / f"python-{version}-0.json").write_text(json.dumps(record))
    (made / "conda-meta" / "history").write_text("")
    return made


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    return environment / "lib" / _name() / "site-packages"


def conda_pack(environment: Path, archive: Path) -> None:
    """Write the archive of an environment."""
    program = Path(sys.executable).with_name("conda-pack")
    subprocess.run([program, "--quiet", "--prefix", environment, "--output", archive], check=True)


def _name() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _write_package(package: Path) -> None:
    programs, library = package / "bin", package / "lib" / _name()
    for each in (programs, library, package / "etc"):
        each.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), programs / _name())
    (programs / "python").symlink_to(_name())
    here = Path(os.__file__).parent
    for part in here.iterdir():  # links, because to copy the standard library takes seconds
        if part.name != "site-packages":
            (library / part.name).symlink_to(part)
    (library / "site-packages").mkdir()
    (package / TEXT).write_text(f"home={PLACEHOLDER}/share\n")
    (package / BINARY).write_bytes(b"\xff\0" + PLACEHOLDER.encode() + b"/share\0\xff")


def _told(file: Path, name: str) -> dict[str, str]:
    modes = {TEXT: "text", BINARY: "binary"}
    kind = {"_path": name, "path_type": "softlink" if file.is_symlink() else "hardlink"}
    return {**kind, "file_mode": modes[name], "prefix_placeholder": PLACEHOLDER} if name in modes else kind
