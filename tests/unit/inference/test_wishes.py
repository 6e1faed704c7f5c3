"""What an artifact asks for its environment, and what of that is refused."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard_inference.environment_policy import OF_ARTIFACT, Environment, EnvironmentSource
from modelyard_inference.environments import EnvironmentFailed, wishes
from modelyard_inference.environments.archives import Archive
from modelyard_kit.limits import LIMITS

HERE = ".".join(platform.python_version_tuple()[:2])
NEEDS = ("grpcio<1.84", "xgboost-cpu>=3")


def runtime_yaml(folder: Path, python: str) -> None:
    (folder / "runtime.yaml").write_text(
        f"MODEL_DEPLOYMENT: {{INFERENCE_CONDA_ENV: {{INFERENCE_PYTHON_VERSION: {python}}}}}\n"
    )


def test_an_artifact_that_asks_for_nothing(tmp_path: Path) -> None:
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") is None
    runtime_yaml(tmp_path, f"'{HERE}.1'")
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") is None
    runtime_yaml(tmp_path, "")
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") is None


def test_names_with_versions_beside_what_a_replica_needs(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# what it was trained with\nnumpy == 2.1.0  # exactly\n\nPillow[extra]>=10 ; sys_platform != 'win32'\nmodelyard==0.0.1\n"
    )
    wish = wishes.read(tmp_path, NEEDS, "sha256:aa")
    assert wish == wishes.Wish(
        HERE,
        ('Pillow[extra]>=10; sys_platform != "win32"', "grpcio<1.84", "numpy==2.1.0", "xgboost-cpu>=3"),
    )
    (tmp_path / "requirements.txt").write_text("XGBoost==2.1\n")
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") == wishes.Wish(HERE, ("XGBoost==2.1", "grpcio<1.84"))


def test_what_a_deployment_says_by_itself() -> None:
    own = Environment(EnvironmentSource.REQUIREMENTS, ("XGBoost==2.1", "numpy==2.1.0"))
    assert wishes.chosen(own, NEEDS) == wishes.Wish(HERE, ("XGBoost==2.1", "grpcio<1.84", "numpy==2.1.0"))
    other = Environment(EnvironmentSource.REQUIREMENTS, (), "3.20")
    assert wishes.chosen(other, NEEDS) == wishes.Wish("3.20", NEEDS)


def test_uses_differ_by_what_is_asked_for() -> None:
    own = Environment(EnvironmentSource.REQUIREMENTS, ("a", "b"))
    others = (replace(own, requirements=("a",)), replace(own, python_version="3.12"), OF_ARTIFACT)
    uses = {own.use("sha256:aa"), own.use("sha256:bb"), *(other.use("sha256:aa") for other in others)}
    assert len(uses) == 5
    assert OF_ARTIFACT.use("sha256:aa") == "sha256:aa"
    assert Environment(EnvironmentSource.DEFAULT).use("sha256:aa") == ""


def test_the_order_of_lines_makes_no_difference(tmp_path: Path) -> None:
    found = set()
    for text in ("a==1\nb==2\n", "b == 2\na == 1 # x\n"):
        (tmp_path / "requirements.txt").write_text(text)
        wish = wishes.read(tmp_path, NEEDS, "sha256:aa")
        assert wish is not None
        found.add(wish.id)
    assert len(found) == 1


def test_another_python_is_a_wish_of_its_own(tmp_path: Path) -> None:
    runtime_yaml(tmp_path, "3.20")  # a number in YAML, and not 3.2
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") == wishes.Wish("3.20", NEEDS)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--index-url http://x", "line 2: options of pip such as '--index-url http://x'"),
        ("-r other.txt", "line 2: options"),
        ("-e .", "line 2: options"),
        ("a==1 --hash=sha256:00", "line 2: options"),
        ("a==1 \\", "line 2: options"),
        ("a @ file:///etc/passwd", "line 2: a is named by an address"),
        ("a @ git+https://example.com/a.git", "line 2: a is named by an address"),
        ("./a.whl", "line 2: './a.whl' is no requirement"),
        ("a==", "line 2: 'a==' is no requirement"),
    ],
)
def test_what_is_refused_by_file_and_line(tmp_path: Path, line: str, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"numpy\n{line}\n")
    with pytest.raises(EnvironmentFailed, match=text):
        wishes.read(tmp_path, NEEDS, "sha256:aa")


def test_size_and_encoding(tmp_path: Path) -> None:
    maximum = LIMITS["requirements_bytes"].maximum
    path = tmp_path / "requirements.txt"
    path.write_bytes(b"#" * maximum)
    assert wishes.read(tmp_path, NEEDS, "sha256:aa") == wishes.Wish(HERE, NEEDS)
    path.write_bytes(b"#" * (maximum + 1))
    with pytest.raises(EnvironmentFailed, match="larger than 1,048,576 bytes"):
        wishes.read(tmp_path, NEEDS, "sha256:aa")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EnvironmentFailed, match="not UTF-8"):
        wishes.read(tmp_path, NEEDS, "sha256:aa")


@pytest.mark.parametrize(
    ("python", "text"),
    [("3.10", "asks for Python 3.10, and replicas need 3.11"), ("three", "'three', no version like '3.12'")],
)
def test_pythons_that_no_replica_runs_on(tmp_path: Path, python: str, text: str) -> None:
    runtime_yaml(tmp_path, python)
    with pytest.raises(EnvironmentFailed, match=text):
        wishes.read(tmp_path, NEEDS, "sha256:aa")


def test_a_runtime_yaml_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "runtime.yaml").write_text("a: [")
    with pytest.raises(EnvironmentFailed, match="runtime.yaml is not valid"):
        wishes.read(tmp_path, NEEDS, "sha256:aa")


def test_needs_are_those_of_the_runtime() -> None:
    plain = wishes.needs_of("python", signed=False, traced=False)
    assert {"numpy>=1.26", "grpcio<1.84"} <= set(plain)
    assert not any(
        "scikit-learn" in need or "sqlalchemy" in need or "model-signing" in need for need in plain
    )
    assert {"scikit-learn>=1.5", "skops>=0.11"} <= set(wishes.needs_of("sklearn", signed=False, traced=False))
    torch = wishes.needs_of("transformers", signed=True, traced=True)
    assert any(need.startswith("torch") for need in torch)
    assert any(need.startswith("model-signing") for need in torch)
    assert any(need.startswith("opentelemetry-sdk") for need in torch)


def test_an_environment_inside_the_artifact(tmp_path: Path) -> None:
    (tmp_path / "env.tar.gz").write_bytes(b"")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    environment_path(tmp_path, "./env.tar.gz")
    found = wishes.read(tmp_path, NEEDS, "sha256:aa")
    assert found == Archive(tmp_path / "env.tar.gz", "sha256:aa", "env.tar.gz", "", NEEDS)
    environment_path(tmp_path, "oci://bucket@namespace/env.tar.gz")  # never opened
    assert isinstance(wishes.read(tmp_path, NEEDS, "sha256:aa"), wishes.Wish)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "missing.tar", "."])
def test_paths_that_are_no_file_of_the_artifact(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"")
    environment_path(folder, path)
    with pytest.raises(EnvironmentFailed, match="the artifact has no such file"):
        wishes.read(folder, NEEDS, "sha256:aa")


def environment_path(folder: Path, path: str) -> None:
    (folder / "runtime.yaml").write_text(
        f"MODEL_DEPLOYMENT: {{INFERENCE_CONDA_ENV: {{INFERENCE_ENV_PATH: '{path}'}}}}\n"
    )
