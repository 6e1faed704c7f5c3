"""The runtimes of trees that are boosted: XGBoost and LightGBM."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_iris

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec
from tests.conformance.replicas import IRIS, iris_rows
from tests.conformance.runtime_suite import RuntimeSuite

NAMES = ("sepal length", "sepal width", "petal length", "petal width")
SCORES = TensorSpec("output", "FP32", (-1, 3))


@functools.cache
def xgboost_classifier() -> Any:
    return xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(iris_rows(), load_iris().target)


@functools.cache
def lightgbm_classifier() -> Any:
    model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=5, verbose=-1, n_jobs=1)
    return model.fit(iris_rows(), load_iris().target)


def table_signature() -> Signature:
    inputs = tuple(TensorSpec(name, "FP32", (-1,)) for name in NAMES)
    outputs = (TensorSpec("output", "FP64", (-1,)),)
    return Signature((MethodSignature("predict", inputs, outputs, InputLayout.COLUMNS),))


def plain_signature(output: TensorSpec, name: str = "predict") -> Signature:
    return Signature((MethodSignature(name, (TensorSpec("x", "FP32", (-1, 4)),), (output,)),))


class TestXgboost(RuntimeSuite):
    name = "xgboost"
    file = "model.ubj"
    any_name = True

    def write_iris(self, directory: Path) -> Signature:
        xgboost_classifier().save_model(directory / self.file)
        return IRIS

    def labels(self, rows: Any) -> list[int]:
        return [int(label) for label in xgboost_classifier().predict(rows)]

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match=r"no model\.ubj or model\.json"):
            self.load(tmp_path, IRIS)

    def test_probabilities_from_json(self, tmp_path: Path) -> None:
        xgboost_classifier().save_model(tmp_path / "model.json")
        answers = self.load(tmp_path, IRIS).predict("predict_proba", {"x": iris_rows()})
        np.testing.assert_array_equal(
            np.asarray(answers["scores"]), xgboost_classifier().predict_proba(iris_rows())
        )

    def test_a_booster_gives_what_a_booster_gives(self, tmp_path: Path) -> None:
        booster = xgboost.train(
            {"objective": "multi:softprob", "num_class": 3},
            xgboost.DMatrix(iris_rows(), load_iris().target),
            3,
        )
        booster.save_model(tmp_path / self.file)
        answers = self.load(tmp_path, plain_signature(SCORES)).predict("predict", {"x": iris_rows()})
        np.testing.assert_array_equal(
            np.asarray(answers["output"]), booster.predict(xgboost.DMatrix(iris_rows()))
        )
        with pytest.raises(LoadError, match="'predict_proba', which Booster lacks"):
            self.load(tmp_path, plain_signature(SCORES, "predict_proba"))

    def test_a_regressor_of_a_table_with_missing_values(self, tmp_path: Path) -> None:
        table = pd.DataFrame(iris_rows(), columns=list(NAMES))
        model = xgboost.XGBRegressor(n_estimators=3).fit(table, iris_rows()[:, 0])
        model.save_model(tmp_path / self.file)
        table.iloc[0, 2] = np.nan
        columns = {name: table[name].to_numpy() for name in NAMES}
        answers = self.load(tmp_path, table_signature()).predict("predict", dict(reversed(columns.items())))
        np.testing.assert_array_equal(np.asarray(answers["output"]), model.predict(table))

    def test_texts_are_refused(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        text = TensorSpec("x", "BYTES", (-1, 4))
        with pytest.raises(LoadError, match="'x' of method 'predict' is BYTES"):
            self.load(tmp_path, Signature((MethodSignature("predict", (text,), (SCORES,)),)))


class TestLightgbm(RuntimeSuite):
    name = "lightgbm"
    file = "model.txt"

    def write_iris(self, directory: Path) -> Signature:
        lightgbm_classifier().booster_.save_model(directory / self.file)
        (directory / "labels.json").write_text(json.dumps([0, 1, 2]))
        return IRIS

    def labels(self, rows: Any) -> list[int]:
        return [int(label) for label in lightgbm_classifier().predict(rows)]

    def test_probabilities(self, tmp_path: Path) -> None:
        answers = self.load(tmp_path, self.write_iris(tmp_path)).predict("predict_proba", {"x": iris_rows()})
        np.testing.assert_array_equal(
            np.asarray(answers["scores"]), lightgbm_classifier().predict_proba(iris_rows())
        )

    def test_two_labels_that_are_texts(self, tmp_path: Path) -> None:
        labels = np.where(load_iris().target == 0, "setosa", "other")
        model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(iris_rows(), labels)
        model.booster_.save_model(tmp_path / self.file)
        (tmp_path / "labels.json").write_text(json.dumps(model.classes_.tolist()))
        answers = self.load(tmp_path, IRIS).predict("predict", {"x": iris_rows()})
        assert np.asarray(answers["label"]).tolist() == model.predict(iris_rows()).tolist()
        answers = self.load(tmp_path, IRIS).predict("predict_proba", {"x": iris_rows()})
        np.testing.assert_array_equal(np.asarray(answers["scores"]), model.predict_proba(iris_rows()))

    def test_without_labels_it_is_a_booster(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        (tmp_path / "labels.json").unlink()
        answers = self.load(tmp_path, plain_signature(SCORES)).predict("predict", {"x": iris_rows()})
        np.testing.assert_array_equal(
            np.asarray(answers["output"]), lightgbm_classifier().booster_.predict(iris_rows())
        )

    @pytest.mark.parametrize("labels", ["[0, 1]", '{"0": 1}', "[", "[0, [1], 2]"])
    def test_labels_that_do_not_fit(self, tmp_path: Path, labels: str) -> None:
        self.write_iris(tmp_path)
        (tmp_path / "labels.json").write_text(labels)
        with pytest.raises(LoadError, match=r"labels\.json"):
            self.load(tmp_path, IRIS)

    def test_a_regressor_of_a_table(self, tmp_path: Path) -> None:
        table = pd.DataFrame(iris_rows(), columns=[name.replace(" ", "_") for name in NAMES])
        model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1).fit(
            table, iris_rows()[:, 0].copy()
        )
        model.booster_.save_model(tmp_path / self.file)
        columns = {name: iris_rows()[:, index] for index, name in enumerate(NAMES)}
        answers = self.load(tmp_path, table_signature()).predict("predict", dict(reversed(columns.items())))
        np.testing.assert_array_equal(np.asarray(answers["output"]), model.predict(table))
