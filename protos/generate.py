# /// script
# requires-python = ">=3.11"
# dependencies = ["grpcio-tools==1.75.1", "mypy-protobuf==5.1.0", "setuptools<81"]
# ///
"""Generates the Python stubs from the contracts, or with `--check` tells which committed ones are stale.

Run it isolated, `uv run --script protos/generate.py`: the generator sets the oldest grpcio and protobuf that the stubs
work with, so it is pinned low and kept out of the development environment.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
OUTPUT = PROTOS.parent / "clients" / "python" / "modelyard" / "api"


def generate(target: Path) -> None:
    """Write the stubs of every contract below `target`, which becomes the package `modelyard.api`."""
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("modelyard/**/*.proto"))
    with_service = [name for name in files if "\nservice " in (PROTOS / name).read_text(encoding="utf-8")]
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        include = [f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}", f"-I{well_known}"]
        if protoc.main(["protoc", *include, f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *files]):
            sys.exit("protoc failed")
        services = [f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}"]
        if protoc.main(["protoc", *include, *services, *with_service]):
            sys.exit("protoc failed")
        api = Path(folder) / "modelyard" / "api"
        for directory in [api, *(path for path in api.rglob("*") if path.is_dir())]:
            (directory / "__init__.py").touch()
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(api, target)


def relative_files(root: Path) -> set[Path]:
    """Return the Python files below a folder, relative to it."""
    """Return every Python file and stub below `root`."""
    return {path.relative_to(root) for path in root.rglob("*.py*") if "__pycache__" not in path.parts}


def stale(fresh: Path) -> list[str]:
    """Return one line for every committed file that differs from `fresh`, is missing or is extra."""
    wanted, found = relative_files(fresh), relative_files(OUTPUT) if OUTPUT.exists() else set()
    lines = [f"missing: {path}" for path in sorted(wanted - found)]
    lines += [f"extra: {path}" for path in sorted(found - wanted)]
    lines += [
        f"differs: {path}"
        for path in sorted(wanted & found)
        if not filecmp.cmp(fresh / path, OUTPUT / path, shallow=False)
    ]
    return lines


def main() -> None:
    """Generate, or with `--check` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed stubs and change nothing"
    )
    if not parser.parse_args().check:
        generate(OUTPUT)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "api"
        generate(fresh)
        lines = stale(fresh)
    if lines:
        sys.exit("stubs are stale; run `make fix-protos`:\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
