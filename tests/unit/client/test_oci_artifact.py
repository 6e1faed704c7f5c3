"""OCI artifacts where they lie: folders and zips, their manifest, what they leave out, and how they are made."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from modelyard import errors, oci
from modelyard._manifest import scan
from modelyard.archives import ArchiveRefused

from .test_oci_tests import RUNTIME, SCORE

ENVIRONMENT = "oci://bucket@namespace/env"
X = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.9, 0.1]])


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def manifest(files: dict[str, bytes]) -> bytes:
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in files.items()
    }
    return json.dumps({"version": 1, "generated_by": "oracle-ads", "files": entries}).encode()


FILES = {"score.py": SCORE, "runtime.yaml": RUNTIME, "data/model.bin": b"m"}


@pytest.mark.parametrize("prefix", ["", "artifact/"])
def test_a_zip_with_or_without_a_folder_around_it(prefix: str, tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        {prefix + name: content for name, content in FILES.items()} | {"__MACOSX/._x": b""},
    )
    assert oci.validate(archive).passed
    with oci.opened(archive) as folder:
        assert (folder / "data/model.bin").read_bytes() == b"m"
    assert not folder.exists()


def test_a_required_file_above_the_folder_is_named(tmp_path: Path) -> None:
    files = {"score.py": SCORE, "artifact/runtime.yaml": RUNTIME}
    report = oci.validate(zipped(tmp_path / "a.zip", files))
    assert [test.id for test in report.failures] == ["runtime_yaml"]
    assert "runtime.yaml is in artifact/" in report.failures[0].message


def test_other_zips_and_files_are_left_as_they_are(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "weights.zip", {"a": b""})
    with oci.opened(archive) as path:
        assert path == archive
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    with oci.opened(model) as path:
        assert path == model


def test_a_hostile_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {**FILES, "../evil": b""})
    with pytest.raises(ArchiveRefused, match=r"'\.\./evil'"):
        oci.validate(archive)


def test_what_is_neither_folder_nor_zip(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="no folder and no zip"):
        oci.validate(tmp_path / "missing")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (FILES | {"score.py": SCORE + b" "}, "score.py is not the file"),
        (FILES | {"more": b""}, "more is there, but not in the manifest"),
        (
            {name: FILES[name] for name in ("score.py", "runtime.yaml")},
            "data/model.bin is in the manifest, but not there",
        ),
    ],
)
def test_files_must_be_as_their_manifest_says(files: dict[str, bytes], told: str, tmp_path: Path) -> None:
    whole = files | {"model_artifact_manifest.json": manifest(FILES)}
    for path in (zipped(tmp_path / "a.zip", whole), laid_out(tmp_path / "folder", whole)):
        with pytest.raises(errors.InvalidArgument, match=told):
            oci.validate(path)
    right = laid_out(tmp_path / "right", FILES | {"model_artifact_manifest.json": manifest(FILES)})
    assert oci.validate(right).passed


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"version": 2, "files": {}}', b'{"version": 1, "files": {"a": 1}}']
)
def test_a_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "a", FILES | {"model_artifact_manifest.json": content})
    with pytest.raises(errors.InvalidArgument, match="model_artifact_manifest"):
        oci.validate(folder)


async def test_a_model_ignore_leaves_out(tmp_path: Path) -> None:
    ignore = b"# comment\n\n__pycache__/\n*.pyc\nnotes/*.txt\n.DS_Store\nscore.py\n"
    others = {
        "__pycache__/x": b"",
        "a/__pycache__/y": b"",
        "a/b.pyc": b"",
        "notes/n.txt": b"",
        "n.txt": b"",
        "a/.DS_Store": b"",
    }
    folder = laid_out(tmp_path, FILES | others | {".model-ignore": ignore})
    found = [file.entry.path for file in await scan(folder)]
    assert found == [".model-ignore", "data/model.bin", "n.txt", "runtime.yaml", "score.py"]
    (folder / ".model-ignore").write_bytes(b"!keep")
    with pytest.raises(errors.InvalidArgument, match="take files back in"):
        await scan(folder)


def predicted(folder: Path, *given: str) -> list[object]:
    """What a program, which loads the model once, predicts for each."""
    code = f"import json, score; print(json.dumps([score.predict(one) for one in ({', '.join(given)},)]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [answer["prediction"] for answer in json.loads(done.stdout)]


def test_a_made_artifact_of_scikit_learn_passes_and_runs(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, [0, 1, 0, 1])
    folder = oci.prepare(
        model, tmp_path / "a", example=X[:2], environment_path=ENVIRONMENT, python_version="3.10"
    )
    assert oci.validate(folder).passed
    assert {path.name for path in folder.iterdir()} == {
        "score.py", "runtime.yaml", "requirements.txt", "model.skops", "README.md", ".model-ignore", "input_schema.json",
        "output_schema.json",
    }  # fmt: skip
    expected = model.predict(X).tolist()
    encoded = "__import__('base64').b64encode(b.getvalue()).decode()"
    array = f"(lambda b: (__import__('numpy').save(b, {X.tolist()!r}), {{'data': {encoded}, 'data_type': 'numpy.ndarray'}})[1])(__import__('io').BytesIO())"
    forms = (X.tolist(), json.dumps(X.tolist()).encode(), {"data": X.tolist()})
    assert predicted(folder, *map(repr, forms), array) == [expected] * 4
    assert any(
        line.startswith("scikit-learn==") for line in (folder / "requirements.txt").read_text().splitlines()
    )
    assert json.loads((folder / "input_schema.json").read_text())["schema"][0]["dtype"] == "float64"


def test_a_made_artifact_of_onnx_passes_and_runs(tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    model = LinearRegression().fit(X, [0.0, 1.0, 0.0, 1.0])
    graph = to_onnx(model, X[:1].astype(np.float32))
    folder = oci.prepare(graph, tmp_path / "a", environment_path=ENVIRONMENT)
    assert oci.validate(folder).passed
    found = np.ravel(predicted(folder, repr(X.tolist())))
    assert np.allclose(found, model.predict(X), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"environment_path": " "}, "environment_path"),
        ({"environment_type": "conda"}, "environment_type"),
        ({"python_version": "three"}, "python_version"),
        ({"environment_path": "envs/none"}, "is not right"),
    ],
)
def test_wrong_arguments_of_prepare(arguments: dict[str, str], told: str, tmp_path: Path) -> None:
    model = LinearRegression().fit(X, [0.0, 1.0, 0.0, 1.0])
    with pytest.raises(errors.InvalidArgument, match=told):
        oci.prepare(model, tmp_path / "a", example=X, **{"environment_path": ENVIRONMENT, **arguments})  # type: ignore[arg-type]


def test_a_folder_that_is_not_empty_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    model = LinearRegression().fit(X, [0.0, 1.0, 0.0, 1.0])
    with pytest.raises(errors.InvalidArgument, match="not empty"):
        oci.prepare(model, tmp_path, example=X, environment_path=ENVIRONMENT)
    assert oci.prepare(model, tmp_path, example=X, environment_path=ENVIRONMENT, overwrite=True) == tmp_path


def test_without_pyyaml_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(errors.MissingExtra, match=r"pip install 'modelyard\[oci\]'"):
        oci.validate(laid_out(tmp_path, FILES))
