"""Verbs that move files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.catalog.v1 import catalog_service_pb2

from .fake import Fake
from .test_cli import MODEL, VERSION, modelyard
from .test_cli import connected as connected  # noqa: PLC0414  (a fixture)
from .test_transfer import Store, sha, tree
from .test_transfer import folder as folder  # noqa: PLC0414
from .test_transfer import store as store  # noqa: PLC0414


@pytest.fixture
def stored(connected: Fake, store: Store, folder: Path) -> Path:
    """The folder, uploaded by the command line."""
    result = modelyard("artifacts", "upload", str(folder), "--model", MODEL, "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["digest"] == store.digest
    assert not connected.requests("CreateModelVersion")
    return folder


def test_files_of_a_version(stored: Path) -> None:
    rows = json.loads(modelyard("artifacts", "files", VERSION, "-o", "json").stdout)
    assert {row["path"]: row["size"] for row in rows} == {
        name: len(content) for name, content in tree(stored).items()
    }


def test_artifacts_of_a_model(connected: Fake) -> None:
    connected.answers["ListArtifacts"] = lambda _: pb.ListArtifactsResponse(
        artifacts=[{"digest": "sha256:00", "file_count": 4, "size": 9}]
    )
    arguments = ("--filter", "size > 1", "--order-by", "size desc")
    [row] = json.loads(modelyard("artifacts", "list", MODEL, *arguments, "-o", "json").stdout)
    assert (row["digest"], row["file_count"]) == ("sha256:00", 4)
    [request] = connected.requests("ListArtifacts")
    assert (request.model, request.filter, request.order_by) == (MODEL, "size > 1", "size desc")


def test_a_signature_is_taken_away(stored: Path, connected: Fake) -> None:
    removed = iter((True, False))
    connected.answers["RemoveSignature"] = lambda _: pb.RemoveSignatureResponse(removed=next(removed))
    assert modelyard("artifacts", "unsign", VERSION, "i").stdout == "removed i\n"
    assert modelyard("artifacts", "unsign", VERSION, "i").stdout == "there was no i\n"
    request = connected.requests("RemoveSignature")[0]
    assert (request.model, request.signature_id) == (MODEL, "i")


def test_one_file_to_a_file_or_to_standard_output(stored: Path, store: Store, tmp_path: Path) -> None:
    to = tmp_path / "one"
    assert modelyard("artifacts", "get", VERSION, "deep/ä", "--to", str(to)).stdout == f"{to}\n"
    assert to.read_bytes() == b"umlaut"
    assert modelyard("artifacts", "get", VERSION, "deep/ä").stdout_bytes == b"umlaut"
    part = modelyard("artifacts", "get", VERSION, "model.skops", "--offset", "7", "--length", "10")
    assert part.stdout_bytes == b"weightswei"
    store.blobs[sha(b"umlaut")] = b"Umlaut"
    spoiled = modelyard("artifacts", "get", VERSION, "deep/ä")
    assert spoiled.exit_code == 1
    assert "do not use it" in spoiled.stderr
    wrong = modelyard("artifacts", "get", VERSION, "deep/ä", "--to", str(to), "--offset", "1")
    assert (wrong.exit_code, "leave --to out" in wrong.stderr) == (2, True)


def test_a_download_goes_to_a_folder_or_a_zip(stored: Path, tmp_path: Path) -> None:
    for arguments in ((), (str(tmp_path / "out"), "--zip", str(tmp_path / "out.zip"))):
        result = modelyard("artifacts", "download", VERSION, *arguments)
        assert result.exit_code == 2
        assert "or a file with --zip" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("artifacts", "upload", "FOLDER", "-m", MODEL), ("log", "FOLDER/model.onnx", MODEL)]
)
def test_an_interrupted_upload_says_how_to_go_on(
    connected: Fake, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    (folder / "model.onnx").write_bytes(b"x")
    monkeypatch.setattr("modelyard.client.Artifacts.upload", interrupt)
    monkeypatch.setattr("modelyard.client.Client.log_model", interrupt)
    result = modelyard(*(one.replace("FOLDER", str(folder)) for one in arguments))
    assert result.exit_code == 130
    assert "the same command again continues the upload" in result.stderr


def test_the_cache_is_listed_and_pruned(stored: Path, tmp_path: Path) -> None:
    modelyard("artifacts", "download", VERSION, str(tmp_path / "out"))
    rows = json.loads(modelyard("cache", "list", "-o", "json").stdout)
    assert {row["sha256"] for row in rows} == {sha(content) for content in tree(stored).values()}
    assert all(row["shared"] for row in rows)
    assert "freed 0.0 MiB" in modelyard("cache", "prune", "--to", "0").stdout
    assert "--to: '5 apples' is no size" in modelyard("cache", "prune", "--to", "5 apples").stderr
    assert "removed 3 entries" in modelyard("cache", "prune", "--all").stdout
    assert modelyard("cache", "list").stderr == "nothing is kept\n"


def test_answers_are_asked_for_where_a_model_is_not_run_to_find_them(
    connected: Fake, store: Store, tmp_path: Path
) -> None:
    rows, answers, model = tmp_path / "rows.csv", tmp_path / "answers.json", tmp_path / "model"
    rows.write_text("1.5,2\n3,4\n")
    answers.write_text('{"species": ["setosa", "virginica"]}')
    model.mkdir()
    (model / "score.py").write_text("def predict(data, model): ...")
    made: list[Any] = []

    def create(request: Any) -> Any:
        made.append(request)
        return catalog_service_pb2.CreateModelVersionResponse(model_version={"name": VERSION, "number": 1})

    connected.answers["CreateModelVersion"] = create
    log = ("log", str(model), MODEL, "--runtime", "score")
    for given in ((), ("--example", str(rows))):
        refused = modelyard(*log, *given)
        assert refused.exit_code == 1
        assert refused.stderr.splitlines() == [
            "error: signature: cannot be told from model without running it",
            "hint: give rows and what the model answers to them, JSON or CSV: --example rows.csv --answers answers.json",
        ]
    assert modelyard(*log, "--answers", str(answers)).exit_code == 2  # to which rows?
    logged = modelyard(*log, "--example", str(rows), "--answers", str(answers))
    assert logged.exit_code == 0, logged.stderr
    [method] = made[-1].signature.methods
    assert [(spec.name, spec.datatype, [*spec.shape]) for spec in (*method.inputs, *method.outputs)] == [
        ("input", "FP64", [-1, 2]),
        ("species", "BYTES", [-1]),
    ]
