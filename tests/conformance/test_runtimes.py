"""Every runtime does what `RuntimeSuite` says, and each its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skl2onnx
import skops.io
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from modelyard_inference import runtimes
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec
from tests.conformance import replicas
from tests.conformance.replicas import IRIS, iris_model, iris_rows
from tests.conformance.runtime_suite import COLOURS, TextSuite, colours_method


class TestSklearn(TextSuite):
    name = "sklearn"
    file = "model.skops"
    any_name = True

    def write_iris(self, directory: Path) -> Signature:
        replicas.write_iris(directory)
        return IRIS

    def write_colours(self, directory: Path) -> Signature:
        skops.io.dump(OneHotEncoder().fit(COLOURS), directory / self.file)
        return Signature((colours_method(TensorSpec("codes", "FP64", (-1, 6))),))

    @pytest.mark.parametrize(
        "model",
        [
            RandomForestClassifier(3),
            GradientBoostingClassifier(n_estimators=2),
            HistGradientBoostingClassifier(max_iter=2),
            KNeighborsClassifier(),
            make_pipeline(StandardScaler(), KNeighborsClassifier()),
        ],
        ids=lambda model: type(model).__name__,
    )
    def test_types_of_sklearn_are_trusted(self, tmp_path: Path, model: Any) -> None:
        model.fit(iris_rows(), load_iris().target)
        skops.io.dump(model, tmp_path / self.file)
        answers = self.load(tmp_path, IRIS).predict("predict", {"x": iris_rows()})
        assert np.asarray(answers["label"]).tolist() == model.predict(iris_rows()).tolist()

    def test_other_types_are_refused_by_name(self, tmp_path: Path) -> None:
        skops.io.dump(FunctionTransformer(replicas.write_iris), tmp_path / self.file)
        with pytest.raises(
            LoadError, match=r"not of scikit-learn or NumPy.*tests\.conformance\.replicas\.write_iris"
        ):
            self.load(tmp_path, IRIS)

    def test_functions_of_numpy_are_no_types(self, tmp_path: Path) -> None:
        skops.io.dump(FunctionTransformer(np.testing.assert_equal), tmp_path / self.file)
        with pytest.raises(LoadError, match="not of scikit-learn or NumPy"):
            self.load(tmp_path, IRIS)

    def test_odd_numbers_are_the_callers_mistake(self, tmp_path: Path) -> None:
        runtime = self.load(tmp_path, self.write_iris(tmp_path))
        for odd in (float("nan"), float("inf")):
            with pytest.raises(RejectedInput, match="NaN"):
                runtime.predict("predict", {"x": np.array([[1, 2, odd, 4]], dtype=np.float32)})

    def test_width_of_the_signature(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        method = MethodSignature(
            "predict", (TensorSpec("x", "FP32", (-1, 5)),), (TensorSpec("label", "INT64", (-1,)),)
        )
        with pytest.raises(LoadError, match="5 columns.*takes 4"):
            self.load(tmp_path, Signature((method,)))

    def test_two_tensors_are_no_matrix(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        inputs = (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2)))
        method = MethodSignature("predict", inputs, (TensorSpec("label", "INT64", (-1,)),))
        with pytest.raises(LoadError, match="takes one matrix"):
            self.load(tmp_path, Signature((method,)))

    def test_columns_of_numbers(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        names = ("a", "b", "c", "d")
        inputs = tuple(TensorSpec(name, "FP32", (-1,)) for name in names)
        outputs = (TensorSpec("label", "INT64", (-1,)),)
        signature = Signature((MethodSignature("predict", inputs, outputs, InputLayout.COLUMNS),))
        columns = {name: iris_rows()[:, index] for index, name in enumerate(names)}
        # The order of the signature counts, not that of the request.
        answers = self.load(tmp_path, signature).predict("predict", dict(reversed(columns.items())))
        assert np.asarray(answers["label"]).tolist() == iris_model().predict(iris_rows()).tolist()

    def test_one_output_per_column(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        outputs = tuple(TensorSpec(name, "FP64", (-1,)) for name in load_iris().target_names)
        method = MethodSignature("predict_proba", (TensorSpec("x", "FP32", (-1, 4)),), outputs)
        answers = self.load(tmp_path, Signature((method,))).predict("predict_proba", {"x": iris_rows()[:7]})
        expected = iris_model().predict_proba(iris_rows()[:7])
        for index, name in enumerate(load_iris().target_names):
            np.testing.assert_allclose(np.asarray(answers[name]), expected[:, index])


class TestOnnx(TextSuite):
    name = "onnx"
    file = "model.onnx"
    any_name = True

    def write_iris(self, directory: Path) -> Signature:
        graph = skl2onnx.to_onnx(
            iris_model(), initial_types=[("x", FloatTensorType([None, 4]))], options={"zipmap": False}
        )
        (directory / self.file).write_bytes(graph.SerializeToString())
        inputs = (TensorSpec("x", "FP32", (-1, 4)),)
        return Signature(
            (
                MethodSignature("predict", inputs, (TensorSpec("label", "INT64", (-1,)),)),
                MethodSignature("predict_proba", inputs, (TensorSpec("probabilities", "FP32", (-1, 3)),)),
            )
        )

    def write_colours(self, directory: Path) -> Signature:
        types = [("colour", StringTensorType([None, 1])), ("size", StringTensorType([None, 1]))]
        graph = skl2onnx.to_onnx(OneHotEncoder(sparse_output=False).fit(COLOURS), initial_types=types)
        (directory / self.file).write_bytes(graph.SerializeToString())
        name = graph.graph.output[0].name
        return Signature((colours_method(TensorSpec(name, "FP32", (-1, 6))),))

    def test_maps_are_refused(self, tmp_path: Path) -> None:
        graph = skl2onnx.to_onnx(iris_model(), initial_types=[("x", FloatTensorType([None, 4]))])
        (tmp_path / self.file).write_bytes(graph.SerializeToString())
        output = TensorSpec("output_probability", "FP32", (-1, 3))
        method = MethodSignature("predict_proba", (TensorSpec("x", "FP32", (-1, 4)),), (output,))
        with pytest.raises(LoadError, match="cannot be served"):
            self.load(tmp_path, Signature((method,)))

    def test_type_of_the_signature(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        method = MethodSignature(
            "predict", (TensorSpec("x", "FP64", (-1, 4)),), (TensorSpec("label", "INT64", (-1,)),)
        )
        with pytest.raises(LoadError, match="is FP32, the signature says FP64"):
            self.load(tmp_path, Signature((method,)))

    def test_names_of_the_signature(self, tmp_path: Path) -> None:
        self.write_iris(tmp_path)
        method = MethodSignature(
            "predict", (TensorSpec("flower", "FP32", (-1, 4)),), (TensorSpec("label", "INT64", (-1,)),)
        )
        with pytest.raises(LoadError, match="'flower'; the graph has x"):
            self.load(tmp_path, Signature((method,)))


def test_unknown_runtime() -> None:
    with pytest.raises(LoadError, match="'tensorflow' is none of lightgbm, mlflow, onnx"):
        runtimes.find("tensorflow")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "modelyard_inference.runtimes.onnx", raising=False)
    with pytest.raises(LoadError, match=r"needs onnxruntime: pip install 'modelyard\[onnx\]'"):
        runtimes.find("onnx")
