"""What `log_model` saves of each framework, which runtime loads it, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from modelyard import errors, infer_signature
from modelyard.flavors import Prepared, prepare
from modelyard.types import InputLayout, Signature

X, y = load_iris(return_X_y=True)
TABLE = pd.DataFrame(X, columns=["a", "b", "c", "d"])


def logged(model: Any, folder: Path, **arguments: Any) -> Prepared:
    return prepare(model, folder, **{"runtime": None, "example": None, "signature": None, **arguments})


def names(signature: Signature | None) -> list[tuple[str, str, tuple[int, ...]]]:
    assert signature is not None
    return [(m.name, m.outputs[0].datatype, m.outputs[0].shape) for m in signature.methods]


@pytest.fixture(scope="module")
def xgboost_model() -> Any:
    return xgboost.XGBClassifier(n_estimators=2).fit(X, y)


@pytest.fixture(scope="module")
def lightgbm_model() -> Any:
    labels = np.array(["setosa", "versicolor", "virginica"])[y]
    return lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=5, verbose=-1, n_jobs=1).fit(X, labels)


def test_an_estimator_of_xgboost(tmp_path: Path, xgboost_model: Any) -> None:
    prepared = logged(xgboost_model, tmp_path, example=X[:3])
    assert (prepared.path, prepared.runtime) == (tmp_path / "model.ubj", "xgboost")
    assert names(prepared.signature) == [("predict", "INT64", (-1,)), ("predict_proba", "FP32", (-1, 3))]
    told = prepared.metadata
    assert (told.framework, told.framework_version, told.algorithm, told.use_case) == (
        "xgboost", xgboost.__version__, "XGBClassifier", "multinomial_classification",
    )  # fmt: skip
    assert told.hyperparameters["n_estimators"] == 2


def test_a_booster_of_xgboost(tmp_path: Path, xgboost_model: Any) -> None:
    booster = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(X, y), 2)
    prepared = logged(booster, tmp_path, example=X[:3])
    assert names(prepared.signature) == [("predict", "FP32", (-1,))]
    assert xgboost.Booster(model_file=prepared.path).num_features() == 4


def test_an_estimator_of_lightgbm_keeps_its_labels(tmp_path: Path, lightgbm_model: Any) -> None:
    prepared = logged(lightgbm_model, tmp_path, example=X[:3])
    assert (prepared.path, prepared.runtime) == (tmp_path, "lightgbm")
    assert names(prepared.signature) == [("predict", "BYTES", (-1,)), ("predict_proba", "FP64", (-1, 3))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.json", "model.txt"]
    assert json.loads((tmp_path / "labels.json").read_text()) == ["setosa", "versicolor", "virginica"]
    assert (prepared.metadata.framework, prepared.metadata.algorithm) == ("lightgbm", "LGBMClassifier")


def test_a_booster_of_lightgbm(tmp_path: Path, lightgbm_model: Any) -> None:
    prepared = logged(lightgbm_model.booster_, tmp_path, example=X[:3])
    assert names(prepared.signature) == [("predict", "FP64", (-1, 3))]
    assert [path.name for path in tmp_path.iterdir()] == ["model.txt"]


def test_categories_of_texts_are_refused(tmp_path: Path) -> None:
    table = TABLE.assign(a=pd.Categorical(np.where(X[:, 0] > 5, "long", "short")))
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(table, y)
    with pytest.raises(errors.InvalidArgument, match="columns of texts"):
        logged(model, tmp_path, example=table[:3])


def test_a_table_becomes_columns(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=2).fit(TABLE, y)
    method = logged(model, tmp_path, example=TABLE[:3]).signature.methods[0]  # type: ignore[union-attr]
    assert method.input_layout is InputLayout.COLUMNS
    assert [spec.name for spec in method.inputs] == ["a", "b", "c", "d"]


def test_what_only_transforms(tmp_path: Path) -> None:
    prepared = logged(StandardScaler().fit(X), tmp_path, example=X[:3])
    assert (prepared.runtime, names(prepared.signature)) == ("sklearn", [("transform", "FP64", (-1, 4))])


@pytest.mark.parametrize(
    ("file", "runtime"),
    [
        ("model.ubj", "xgboost"),
        ("model.txt", "lightgbm"),
        ("model.pt2", "torch"),
        ("pipeline.json", "transformers"),
        ("score.py", "score"),
        ("model.py", "python"),
    ],
)
def test_a_folder_tells_its_runtime(tmp_path: Path, file: str, runtime: str) -> None:
    (tmp_path / file).write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert logged(tmp_path, tmp_path, signature=infer_signature(X, y)).runtime == runtime
    with pytest.raises(errors.InvalidArgument, match="signature: cannot be told"):
        logged(tmp_path, tmp_path)


def test_a_file_of_any_name_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(errors.InvalidArgument, match="say which runtime"):
        logged(tmp_path / "notes.txt", tmp_path, signature=infer_signature(X, y))


COLUMNS = '[{"type": "double", "name": "a", "required": true}, {"type": "string", "name": "b"}]'
TENSORS = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]'


@pytest.mark.parametrize(
    ("inputs", "expected", "layout"),
    [
        (COLUMNS, [("a", "FP64", (-1,)), ("b", "BYTES", (-1,))], InputLayout.COLUMNS),
        (TENSORS, [("input", "FP32", (-1, 4))], InputLayout.TENSORS),
    ],
)
def test_mlflow_tells_its_signature(
    tmp_path: Path, inputs: str, expected: list[Any], layout: InputLayout
) -> None:
    write_mlmodel(tmp_path, inputs, '[{"type": "long"}]')
    prepared = logged(tmp_path, tmp_path)
    assert prepared.runtime == "mlflow"
    assert prepared.signature is not None
    (method,) = prepared.signature.methods
    assert [(spec.name, spec.datatype, spec.shape) for spec in method.inputs] == expected
    assert [(spec.name, spec.datatype) for spec in method.outputs] == [("output", "INT64")]
    assert method.input_layout is layout


def test_signatures_of_mlflow_that_tensors_cannot_hold(tmp_path: Path) -> None:
    write_mlmodel(tmp_path, '[{"type": "datetime", "name": "when"}]', '[{"type": "long"}]')
    with pytest.raises(errors.InvalidArgument, match="'when' in the signature of MLmodel is a datetime"):
        logged(tmp_path, tmp_path)
    (tmp_path / "MLmodel").write_text("signature: {inputs: '[', outputs: '['}")
    with pytest.raises(errors.InvalidArgument, match="MLmodel cannot be read"):
        logged(tmp_path, tmp_path)
    (tmp_path / "MLmodel").write_text("flavors: {}")
    with pytest.raises(errors.InvalidArgument, match="signature: cannot be told"):
        logged(tmp_path, tmp_path)


def write_mlmodel(folder: Path, inputs: str, outputs: str) -> None:
    (folder / "MLmodel").write_text(f"signature:\n  inputs: '{inputs}'\n  outputs: '{outputs}'\n")
