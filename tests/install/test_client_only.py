"""`pip install modelyard`, and nothing more, in an environment of its own."""

from __future__ import annotations

import json

import pytest

from .conftest import Environment

HEAVY = ("sqlalchemy", "numpy", "opentelemetry", "aiobotocore", "pydantic", "sklearn", "onnxruntime", "envoy")
SERVICES = (
    "modelyard_catalog",
    "modelyard_artifact",
    "modelyard_governance",
    "modelyard_inference",
    "modelyard_gateway",
)

IMPORTS = """
import json, sys
import modelyard, modelyard.cli
missing = []
for name in modelyard.__all__:
    try:
        getattr(modelyard, name)
    except modelyard.MissingExtra as error:
        missing.append(str(error))
print(json.dumps({"loaded": sorted({name.partition(".")[0] for name in sys.modules}), "missing": missing}))
"""


@pytest.fixture(params=["client_only", "lowest"])
def environment(request: pytest.FixtureRequest) -> Environment:
    """The client with pinned and with the lowest allowed dependencies."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Environment)
    return found


def test_public_names_pull_nothing_heavy_or_say_what_to_install(environment: Environment) -> None:
    seen = json.loads(environment.run("-W", "error", "-c", IMPORTS).stdout)
    assert set(seen["loaded"]).isdisjoint(HEAVY)
    assert all("pip install 'modelyard[numpy]'" in text for text in seen["missing"])


def test_every_stub_imports(environment: Environment) -> None:
    code = (
        "import importlib, pkgutil, modelyard.api as api\n"
        "for module in pkgutil.walk_packages(api.__path__, 'modelyard.api.'): importlib.import_module(module.name)"
    )
    environment.run("-c", code)


def test_help_works(environment: Environment) -> None:
    done = environment.attempt("modelyard", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("module", SERVICES)
def test_a_service_without_its_extra_says_what_to_install(client_only: Environment, module: str) -> None:
    done = client_only.attempt("python", "-m", module)
    assert done.returncode != 0
    assert "pip install 'modelyard[server]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["up", "demo"])
def test_the_suite_without_its_extra_says_what_to_install(client_only: Environment, verb: str) -> None:
    done = client_only.attempt("modelyard", verb)
    assert done.returncode != 0
    assert "pip install 'modelyard[suite]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
