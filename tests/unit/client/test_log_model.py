from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from modelyard import Client, Dataset, ModelMetadata, RemoteModel, TensorSpec, errors, infer_signature
from modelyard._provenance import capture, without_credentials
from modelyard.api.catalog.v1 import catalog_service_pb2

from .fake import Fake, Refusal
from .test_transfer import Store

MODEL = "prod.ml.iris"
X, y = load_iris(return_X_y=True)


@pytest.fixture
def store(fake: Fake) -> Store:
    def create(request: Any) -> Any:
        version = {
            "name": f"{MODEL}/1",
            "model": MODEL,
            "number": 1,
            "artifact_digest": request.artifact_digest,
        }
        return catalog_service_pb2.CreateModelVersionResponse(model_version=version)

    fake.answers["CreateModelVersion"] = create
    return Store(fake)


@pytest.fixture(scope="module")
def estimator() -> Any:
    return LogisticRegression(max_iter=500).fit(X, y)


def test_an_estimator_becomes_a_version(fake: Fake, client: Client, store: Store, estimator: Any) -> None:
    version = client.log_model(
        estimator,
        MODEL,
        example=X[:3],
        metrics={"accuracy": np.float64(0.9)},
        tags={"team": "ml"},
        aliases=["champion"],
    )
    assert version.name == f"{MODEL}/1"
    (sent,) = fake.requests("CreateModelVersion")
    assert sent.artifact_digest == store.digest
    assert [f.path for f in store.files] == ["model.skops", "warmup.jsonl"]
    assert sent.runtime == "sklearn"
    predict, proba = sent.signature.methods
    assert (predict.name, predict.outputs[0].name, proba.name, proba.outputs[0].name) == (
        "predict",
        "output",
        "predict_proba",
        "probabilities",
    )
    assert (predict.inputs[0].datatype, list(predict.inputs[0].shape)) == ("FP64", [-1, 4])
    assert list(proba.outputs[0].shape) == [-1, 3]
    assert sent.metrics["accuracy"].number_value == 0.9
    assert dict(sent.tags) == {"team": "ml"}
    assert set(sent.provenance.packages) >= {"scikit-learn", "numpy", "skops"}
    assert sent.provenance.python_version
    assert fake.requests("SetAliases")[0].changes[0].version == 1
    assert not fake.requests("CreateModel")


def test_an_example_that_is_not_to_be_kept_is_not(client: Client, store: Store, estimator: Any) -> None:
    client.log_model(estimator, MODEL, example=X[:3], keep_example=False)
    assert [f.path for f in store.files] == ["model.skops"]


def test_a_new_model_is_registered_unless_told_not_to(
    fake: Fake, client: Client, store: Store, estimator: Any
) -> None:
    def refuse(_: object) -> None:
        raise Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND", metadata={"resource_type": "model", "name": MODEL})

    fake.answers["BeginUpload"] = refuse
    with pytest.raises(errors.NotFound):
        client.log_model(estimator, MODEL, example=X[:3], create=False)
    assert not fake.requests("CreateModel")

    def create(_: object) -> Any:
        fake.answers["BeginUpload"] = store.begin
        return catalog_service_pb2.CreateModelResponse()

    fake.answers["CreateModel"] = create
    client.log_model(estimator, MODEL, example=X[:3])
    assert fake.requests("CreateModel")[0].model.name == MODEL


def test_a_missing_schema_is_not_made(fake: Fake, client: Client, store: Store, estimator: Any) -> None:
    def refuse(_: object) -> None:
        raise Refusal(
            "NOT_FOUND", "RESOURCE_NOT_FOUND", metadata={"resource_type": "schema", "name": "prod.ml"}
        )

    fake.answers["BeginUpload"] = refuse
    with pytest.raises(errors.NotFound):
        client.log_model(estimator, MODEL, example=X[:3])
    assert not fake.requests("CreateModel")


def test_onnx_tells_its_own_signature(
    fake: Fake, client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    from skl2onnx import to_onnx

    proto = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    client.log_model(proto, MODEL)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    client.log_model(tmp_path / "model.onnx", MODEL)
    client.log_model(proto.SerializeToString(), MODEL)
    first, second, third = fake.requests("CreateModelVersion")
    assert first.signature == second.signature == third.signature
    assert first.artifact_digest == second.artifact_digest == third.artifact_digest
    assert first.runtime == "onnx"
    assert first.signature.methods[0].inputs[0].datatype == "FP32"
    assert [o.name for o in first.signature.methods[0].outputs] == ["label", "probabilities"]


def test_a_file_may_have_any_name_if_its_suffix_tells_enough(
    client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    from skl2onnx import to_onnx

    proto = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    (tmp_path / "iris.onnx").write_bytes(proto.SerializeToString())
    client.log_model(tmp_path / "iris.onnx", MODEL)
    assert [f.path for f in store.files] == ["iris.onnx"]
    client.log_model(tmp_path, MODEL)
    (tmp_path / "second.onnx").write_bytes(b"")
    with pytest.raises(
        errors.InvalidArgument, match=r"loads model\.onnx, and .* holds iris\.onnx, second\.onnx; rename"
    ):
        client.log_model(tmp_path, MODEL, runtime="onnx", signature=infer_signature(X, y))


@pytest.mark.parametrize(
    ("name", "runtime", "wanted"),
    [
        ("trees.txt", "lightgbm", "model.txt"),
        ("iris.json", "xgboost", "model.ubj or model.json"),
        ("serve.py", "python", "model.py"),
        ("iris.onnx", "sklearn", "model.skops"),
    ],
)
def test_what_no_replica_could_load_is_refused_by_name(
    fake: Fake, client: Client, tmp_path: Path, name: str, runtime: str, wanted: str
) -> None:
    (tmp_path / name).write_bytes(b"1")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(
            errors.InvalidArgument, match=f"model: the runtime {runtime} loads {wanted}, and .*; rename it"
        ):
            client.log_model(path, MODEL, runtime=runtime, signature=infer_signature(X, y))
    assert not fake.requests("BeginUpload")


def test_onnx_with_other_outputs_than_tensors_is_refused(client: Client, estimator: Any) -> None:
    from skl2onnx import to_onnx

    with pytest.raises(errors.InvalidArgument, match="zipmap"):
        client.log_model(to_onnx(estimator, X[:1].astype(np.float32)), MODEL)
    with pytest.raises(errors.InvalidArgument, match="not an ONNX model"):
        client.log_model(b"not onnx", MODEL)


def test_a_folder_needs_a_signature_and_a_runtime(
    fake: Fake, client: Client, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"1")
    signature = infer_signature([[1.0]], [1.0])
    with pytest.raises(errors.InvalidArgument, match="say which runtime"):
        client.log_model(tmp_path, MODEL)
    with pytest.raises(errors.InvalidArgument, match="signature: cannot be told"):
        client.log_model(tmp_path, MODEL, runtime="custom")
    client.log_model(tmp_path, MODEL, runtime="custom", signature=signature)
    assert fake.requests("CreateModelVersion")[0].runtime == "custom"


def test_a_saved_estimator_is_tried_on_the_example(
    fake: Fake, client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    import skops.io

    skops.io.dump(estimator, tmp_path / "model.skops")
    client.log_model(tmp_path / "model.skops", MODEL, example=X[:2].astype(int))
    method = fake.requests("CreateModelVersion")[0].signature.methods[0]
    assert TensorSpec("input", "FP64", (-1, 4)) == TensorSpec(
        method.inputs[0].name, method.inputs[0].datatype, tuple(method.inputs[0].shape)
    )


def test_what_cannot_be_logged_is_said_before_anything_is_sent(
    fake: Fake, client: Client, estimator: Any
) -> None:
    with pytest.raises(errors.InvalidArgument, match="example: give some rows"):
        client.log_model(estimator, MODEL)
    with pytest.raises(errors.InvalidArgument, match="predict fails on it"):
        client.log_model(estimator, MODEL, example=[[1.0]])
    with pytest.raises(errors.InvalidArgument, match="builtins.dict cannot be logged"):
        client.log_model({}, MODEL)
    with pytest.raises(errors.InvalidArgument, match="name: "):
        client.log_model(estimator, "iris", example=X[:1])
    with pytest.raises(errors.InvalidArgument, match="JSON has no such number"):
        client.log_model(estimator, MODEL, example=X[:1], metrics={"loss": float("nan")})
    assert not fake.calls


def test_types_that_replicas_refuse_are_warned_of(tmp_path: Path) -> None:
    from modelyard.flavors import sklearn

    model = FunctionTransformer(subprocess.run)
    with pytest.warns(UserWarning, match="subprocess"):
        sklearn.prepare(model, tmp_path, example=None, signature=infer_signature([[1.0]], [1.0]))


@pytest.mark.parametrize(
    ("address", "clean"),
    [
        ("https://user:token@example.com:8443/a/b.git", "https://example.com:8443/a/b.git"),
        ("https://example.com/a.git?token=x#y", "https://example.com/a.git"),
        ("git@example.com:a/b.git", "git@example.com:a/b.git"),
        ("ssh://git:secret@example.com/a", "ssh://example.com/a"),
        ("", ""),
    ],
)
def test_credentials_never_leave_the_machine(address: str, clean: str) -> None:
    assert without_credentials(address) == clean


def test_provenance_of_a_work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "work")
    git("remote", "add", "origin", "https://u:p@example.com/a.git")
    (tmp_path / "train.py").write_text("")
    git("add", ".")
    git("commit", "-m", "x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"), raising=False)
    clean = capture(["numpy", "no-such-package"])
    assert (clean.git_repository, clean.git_branch) == ("https://example.com/a.git", "work")
    assert len(clean.git_commit) == 40
    assert (clean.git_dirty, clean.source, set(clean.packages)) == (False, "train.py", {"numpy"})
    (tmp_path / "train.py").write_text("changed")
    assert capture([]).git_dirty


def test_provenance_outside_git_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = capture([])
    assert (found.git_repository, found.git_commit, found.git_dirty) == ("", "", False)


def test_an_estimator_tells_what_it_is(fake: Fake, client: Client, store: Store, estimator: Any) -> None:
    client.log_model(estimator, MODEL, example=X[:3], label="1.0.0")
    (sent,) = fake.requests("CreateModelVersion")
    assert sent.label == "1.0.0"
    told = sent.metadata
    assert (told.use_case, told.framework) == ("multinomial_classification", "scikit-learn")
    assert (told.framework_version, told.algorithm) == (sklearn.__version__, "LogisticRegression")
    assert told.hyperparameters["max_iter"] == 500
    assert told.hyperparameters["class_weight"] is None


def test_what_is_given_wins_over_what_is_told(
    fake: Fake, client: Client, store: Store, estimator: Any
) -> None:
    given = ModelMetadata(use_case="other", algorithm="mine", hyperparameters={"only": 1})
    client.log_model(estimator, MODEL, example=X[:3], metadata=given)
    sent = fake.requests("CreateModelVersion")[0].metadata
    assert (sent.use_case, sent.algorithm, dict(sent.hyperparameters)) == ("other", "mine", {"only": 1.0})
    assert sent.framework == "scikit-learn"


def test_inputs_go_into_the_provenance(fake: Fake, client: Client, store: Store, estimator: Any) -> None:
    client.log_model(estimator, MODEL, example=X[:3], inputs=[Dataset("iris", "1", "sha256:ab", "training")])
    (dataset,) = fake.requests("CreateModelVersion")[0].provenance.datasets
    assert (dataset.name, dataset.version, dataset.digest, dataset.role) == (
        "iris",
        "1",
        "sha256:ab",
        "training",
    )
    assert not fake.requests("RecordLineage")


def test_inputs_and_metadata_are_checked_before_the_upload(
    fake: Fake, client: Client, estimator: Any
) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"inputs\[0\].name: holds credentials"):
        client.log_model(estimator, MODEL, example=X[:3], inputs=[Dataset("http://a:b@host/")])
    with pytest.raises(errors.InvalidArgument, match=r"test_results\['x'\]"):
        client.log_model(
            estimator, MODEL, example=X[:3], metadata=ModelMetadata(test_results={"x": object()})
        )
    assert not fake.calls


def test_onnx_tells_the_framework_behind_it(
    fake: Fake, client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    from skl2onnx import to_onnx

    proto = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    client.log_model(proto, MODEL)
    client.log_model(tmp_path / "model.onnx", MODEL)
    made_here, saved = (request.metadata for request in fake.requests("CreateModelVersion"))
    assert (made_here.framework, made_here.framework_version) == ("scikit-learn", sklearn.__version__)
    assert (saved.framework, saved.framework_version) == ("scikit-learn", "")


def test_a_saved_estimator_tells_all_but_the_version_it_was_saved_with(
    fake: Fake, client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    import skops.io

    skops.io.dump(estimator, tmp_path / "model.skops")
    client.log_model(tmp_path / "model.skops", MODEL, example=X[:2])
    client.log_model(tmp_path / "model.skops", MODEL, signature=infer_signature(X[:2], y[:2]))
    tried, unread = (request.metadata for request in fake.requests("CreateModelVersion"))
    assert (tried.algorithm, tried.framework_version) == ("LogisticRegression", "")
    assert (unread.algorithm, unread.framework) == ("", "scikit-learn")


def test_model_and_name_the_other_way_round_are_told_apart(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument, match="name: must be a name, not a value of type object"):
        client.log_model("prod.ml.iris", object())  # type: ignore[arg-type]


@pytest.mark.parametrize("requirements", [["numpy>=2", "scikit-learn==1.5"], "installed"])
def test_requirements_are_stored_with_the_model(
    fake: Fake, client: Client, store: Store, estimator: Any, requirements: Any
) -> None:
    client.log_model(estimator, MODEL, example=X[:3], requirements=requirements)
    assert [f.path for f in store.files] == ["model.skops", "requirements.txt", "warmup.jsonl"]
    (text,) = [content for content in store.blobs.values() if content.startswith(b"numpy")]
    if requirements == "installed":
        assert f"scikit-learn=={sklearn.__version__}" in text.decode().splitlines()
        assert b"modelyard" not in text
    else:
        assert text == b"numpy>=2\nscikit-learn==1.5\n"


def test_requirements_that_cannot_be_stored(
    fake: Fake, client: Client, store: Store, estimator: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("")
    signature = infer_signature([[1.0]], [1.0])
    with pytest.raises(errors.InvalidArgument, match="requirements: .* is logged as it is"):
        client.log_model(tmp_path, MODEL, signature=signature, requirements=["numpy"])
    for wrong in ("numpy", ["a\nb"]):
        with pytest.raises(errors.InvalidArgument, match="requirements: give a list of lines"):
            client.log_model(estimator, MODEL, example=X[:3], requirements=wrong)  # type: ignore[arg-type]
    assert not fake.requests("CreateModelVersion")


def test_a_model_on_another_server_is_where_it_is(
    fake: Fake, client: Client, store: Store, tmp_path: Path
) -> None:
    model = RemoteModel("unix:/nowhere.sock", "there")
    client.log_model(model, MODEL, signature=infer_signature(X, y))
    (tmp_path / "remote.json").write_text(model.to_json())
    client.log_model(tmp_path, MODEL, signature=infer_signature(X, y))
    for sent in fake.requests("CreateModelVersion"):
        assert (sent.runtime, sent.signature.methods[0].name) == ("remote", "predict")
    assert [f.path for f in store.files] == ["remote.json"]
    with pytest.raises(errors.InvalidArgument, match="does not say what 'there' takes and gives"):
        client.log_model(model, MODEL)
    (tmp_path / "remote.json").write_text("{}")
    with pytest.raises(errors.InvalidArgument, match="remote.json: url: is missing"):
        client.log_model(tmp_path, MODEL)
