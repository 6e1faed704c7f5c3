"""The lowest grpcio and protobuf that the package allows are those of the committed stubs."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from .catalogue import API, PROTOS, ROOT


def floor(package: str) -> str:
    """The lowest version of a base dependency in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirement = next(r for r in map(Requirement, project["dependencies"]) if r.name == package)
    return next(part.version for part in requirement.specifier if part.operator == ">=")


def versions_in(glob: str, pattern: str) -> set[str]:
    """Every version that the generated files say they were made by."""
    files = sorted(API.rglob(glob))
    assert files
    found = {path.name: re.search(pattern, path.read_text(encoding="utf-8")) for path in files}
    return {match[1] if match else f"none in {name}" for name, match in found.items()}


@pytest.mark.parametrize(
    ("package", "glob", "pattern"),
    [
        ("grpcio", "*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'"),
        ("protobuf", "*_pb2.py", r"# Protobuf Python Version: ([\d.]+)"),
    ],
)
def test_floor_equals_the_generator_of_the_stubs(package: str, glob: str, pattern: str) -> None:
    generated = versions_in(glob, pattern)
    assert generated == {floor(package)}, f"set {package}>={generated} in pyproject.toml, then make fix-lock"


def test_the_generator_is_pinned_to_that_version() -> None:
    pinned = re.search(r"grpcio-tools==([\d.]+)", (PROTOS / "generate.py").read_text(encoding="utf-8"))
    assert pinned
    assert pinned[1] == floor("grpcio")
