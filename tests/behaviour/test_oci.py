"""An OCI model artifact: uploaded as the zip it is, inspected by the service, shown with the version."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modelyard import errors, oci
from modelyard.aio import AsyncClient
from modelyard.types import ArtifactTests, InspectionState, ScanResult, Severity
from tests.framework.cli import Cli
from tests.framework.stack import Stack
from tests.framework.waiting import eventually
from tests.unit.artifact.samples import EVIL

ENVIRONMENT = "oci://bucket@namespace/env"


@pytest.fixture
async def model(admin: AsyncClient, schema: str) -> str:
    """A new model without versions."""
    await admin.models.create(f"{schema}.iris")
    return f"{schema}.iris"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A right artifact as a folder."""
    rows = np.random.default_rng(len(str(tmp_path))).random((20, 3))
    fitted = LogisticRegression().fit(rows, rows[:, 0] > 0.5)
    return oci.prepare(fitted, tmp_path / "artifact", example=rows[:3], environment_path=ENVIRONMENT)


def zipped(folder: Path, **more: bytes) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"artifact/{path.name}")
        for name, content in more.items():
            archive.writestr(f"artifact/{name}", content)
    return target


async def test_a_zip_is_stored_as_its_folder_inspected_and_shown(
    stack: Stack, admin: AsyncClient, model: str, artifact: Path, tmp_path: Path
) -> None:
    stored = await admin.artifacts.upload(model, zipped(artifact))
    assert (await admin.artifacts.upload(model, artifact)).digest == stored.digest
    version = await admin.versions.create(model, stored.digest)
    paths = [file.path for file in await admin.artifacts.list_files(version.name).collect()]
    assert "score.py" in paths

    found = await admin.inspections.wait(stored.digest, model=model, timeout=120)
    assert found.state is InspectionState.DONE
    assert found.oci
    assert found.tests_passed
    assert found.scan is ScanResult.CLEAN
    assert found.tests_json == oci.validate(artifact).to_json()
    formats = {file.path: (file.format, file.may_run_code) for file in found.formats}
    assert formats["model.skops"] == ("skops", False)

    async def told() -> bool:
        return bool(await admin.versions.list(model, filter="artifact_tests = 'PASSED'").collect())

    await eventually(told)
    later = await admin.versions.create(model, stored.digest)
    assert (await admin.versions.get(later.name)).artifact_tests is ArtifactTests.PASSED
    shown = await admin.versions.get(version.name)
    assert shown.artifact_tests is ArtifactTests.PASSED
    assert shown.metadata.test_results["score_predict"]["success"] is True
    assert shown.metadata.test_results["runtime_env_path"]["value"] == ENVIRONMENT


async def test_harmful_content_is_told(admin: AsyncClient, model: str, artifact: Path) -> None:
    stored = await admin.artifacts.upload(model, zipped(artifact, **{"weights.bin": EVIL}))
    found = await admin.inspections.wait(stored.digest, model=model, timeout=120)
    assert found.scan is ScanResult.FOUND
    assert [(one.path, one.severity) for one in found.findings if one.severity is Severity.CRITICAL] == [
        ("weights.bin", Severity.CRITICAL)
    ]
    again = await admin.inspections.start(stored.digest, model=model)
    assert again.state is InspectionState.PENDING
    assert (await admin.inspections.wait(stored.digest, model=model, timeout=120)).findings == found.findings


async def test_a_hostile_zip_is_refused_before_anything_is_sent(
    admin: AsyncClient, model: str, artifact: Path
) -> None:
    with pytest.raises(errors.InvalidArgument, match="leaves the archive"):
        await admin.artifacts.upload(model, zipped(artifact, **{"../../evil": b""}))
    kept = await admin.artifacts.upload(model, zipped(artifact), keep_archive=True)
    assert kept.file_count == 1


async def test_the_command_line_validates_and_shows(
    stack: Stack, admin: AsyncClient, model: str, artifact: Path, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "home")
    assert "runtime_env_python" in cli.ok("artifacts", "validate", str(artifact)).out
    assert (
        cli.ok("artifacts", "validate", str(zipped(artifact)), "--json").json["score_py"]["success"] is True
    )
    (artifact / "score.py").unlink()
    wrong = cli.run("artifacts", "validate", str(artifact))
    assert wrong.code == 1
    assert "The file 'score.py' is missing." in wrong.out
