"""The bill of materials of a version."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelyard_artifact.described import DatasetUse, Described
from modelyard_artifact.models import FileEntry
from modelyard_artifact.sbom import document

VERSION = Described(
    id="0198c1a0-0000-7000-8000-000000000001",
    name="prod.ml.iris/3",
    number=3,
    label="1.4.0",
    digest=f"sha256:{'ab' * 32}",
    state="READY",
    description="Flowers. ä",
    author="ada",
    create_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    use_case="multinomial_classification",
    framework="scikit-learn",
    framework_version="1.7",
    algorithm="LogisticRegression",
    hyperparameters='{"C": 1.0}',
    metrics={"accuracy": "0.97", "confusion": "[[1, 0], [0, 1]]"},
    tags={"team": "ml"},
    packages={"Scikit_Learn": "1.7.2"},
    datasets=[
        DatasetUse("s3://lake/iris", "7", "", "training"),
        DatasetUse("s3://lake/iris", "8", "", "test"),
    ],
    git_repository="https://git.example/iris",
    git_commit="abc123",
    python_version="3.11.7",
)
FILES = [FileEntry("model.skops", 3, "cd" * 32), FileEntry("conf/ä.json", 2, "ef" * 32)]
REQUIREMENTS = [
    "# a comment",
    "numpy==2.1.0  # pinned",
    "scikit-learn>=1.5",
    "-r other.txt",
    "pandas[parquet]>=2; python_version > '3.8'",
    "torch==2.* --hash=sha256:00",
    "",
    "not a requirement !!",
]


def made(version: Described = VERSION) -> dict[str, Any]:
    text = document(version, FILES, REQUIREMENTS)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content: dict[str, Any] = json.loads(text)
    return content


def test_the_model_and_its_card() -> None:
    model = made()["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "prod.ml.iris",
        "1.4.0",
    )
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    card = model["modelCard"]
    assert card["modelParameters"] == {
        "task": "classification",
        "architectureFamily": "scikit-learn",
        "modelArchitecture": "LogisticRegression",
        "datasets": [{"ref": "data:s3://lake/iris@7"}],
    }
    assert card["quantitativeAnalysis"]["performanceMetrics"][0] == {"type": "accuracy", "value": "0.97"}
    (reference,) = model["externalReferences"]
    assert (reference["type"], reference["url"]) == ("vcs", "https://git.example/iris")


def test_files_packages_and_data_are_parts() -> None:
    content = made()
    parts = {part["bom-ref"]: part for part in content["components"]}
    assert parts["file:conf/ä.json"]["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]
    versions = {part["name"]: part.get("version") for part in parts.values() if part["type"] == "library"}
    assert versions == {"scikit-learn": "1.7.2", "numpy": "2.1.0", "pandas": None, "torch": None}
    assert parts["package:numpy"]["purl"] == "pkg:pypi/numpy@2.1.0"
    assert {"data:s3://lake/iris@7", "data:s3://lake/iris@8"} <= parts.keys()
    (whole,) = [each for each in content["dependencies"] if each["ref"].startswith("model:")]
    assert set(whole["dependsOn"]) == set(parts)


def test_the_same_version_gives_the_same_document() -> None:
    assert document(VERSION, FILES, REQUIREMENTS) == document(VERSION, FILES[::-1], REQUIREMENTS)
    assert made()["serialNumber"] != made(replace(VERSION, id="another"))["serialNumber"]


def test_nothing_is_known_of_the_version() -> None:
    bare = Described("i", "a.b.c/1", 1, "", VERSION.digest, "READY", "", "ada", VERSION.create_time)
    model = made(bare)["metadata"]["component"]
    assert (model["version"], model["modelCard"]) == ("1", {"modelParameters": {}})
