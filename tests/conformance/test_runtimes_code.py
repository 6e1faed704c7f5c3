"""The runtimes that run an artifact's own code: Python, OCI's score.py, MLflow."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec
from tests.conformance.replicas import IRIS, iris_model, iris_rows
from tests.conformance.runtime_suite import COLOURS, TextSuite, colours_method, columns

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about its own type hints
    import mlflow.pyfunc

    from tests.conformance.mlflow_models import Codes, Labels, Tables

ROWS = TensorSpec("x", "FP32", (-1, 4))
LABEL = TensorSpec("label", "INT64", (-1,))
PREDICT = Signature((MethodSignature("predict", (ROWS,), (LABEL,)),))
COLOURS_TO_CODES = "({'red': 0, 'blue': 1, 'green': 2}[colour] * 10 + 'sml'.index(size))"


class TestPython(TextSuite):
    name = "python"
    file = "model.py"

    def write_iris(self, directory: Path) -> Signature:
        np.savez(directory / "weights.npz", w=iris_model().coef_, b=iris_model().intercept_)
        (directory / "linear.py").write_text("def scores(x, w, b):\n    return x @ w.T + b\n")
        (directory / self.file).write_text("""
import numpy as np
import linear

class Model:
    def __init__(self, directory):
        with np.load(directory / "weights.npz") as weights:
            self.weights = dict(weights)
    def predict(self, inputs):
        return {"label": self.scores(inputs).argmax(axis=1)}
    def predict_proba(self, inputs):
        powers = np.exp(self.scores(inputs))
        return powers / powers.sum(axis=1, keepdims=True)
    def scores(self, inputs):
        if not np.isfinite(inputs["x"]).all():
            raise ValueError("wants finite numbers")
        return linear.scores(inputs["x"], self.weights["w"], self.weights["b"])
    def close(self):
        print("closed")

load = Model
""")
        return IRIS

    def write_colours(self, directory: Path) -> Signature:
        (directory / self.file).write_text(f"""
class Model:
    def __init__(self, directory): pass
    def transform(self, inputs):
        pairs = zip(inputs["colour"], inputs["size"])
        return [[{COLOURS_TO_CODES}] for colour, size in ((c.decode(), s.decode()) for c, s in pairs)]

load = Model
""")
        return Signature((colours_method(TensorSpec("codes", "FP64", (-1, 1))),))

    def test_text_must_be_utf8(self, tmp_path: Path) -> None:
        # BYTES are not always texts: the model gets them as they are, and refuses them by a ValueError.
        signature = self.write_colours(tmp_path)
        inputs = columns(COLOURS[:1])
        inputs["size"][0] = b"\xff\xfe"
        with pytest.raises(RejectedInput, match="was refused by the model: .*utf-8"):
            self.load(tmp_path, signature).predict("transform", inputs)

    def test_a_value_error_is_the_callers_mistake(self, tmp_path: Path) -> None:
        runtime = self.load(tmp_path, self.write_iris(tmp_path))
        with pytest.raises(RejectedInput, match="wants finite numbers") as caught:
            runtime.predict("predict", {"x": np.full((1, 4), np.nan, np.float32)})
        assert caught.value.tensor == "x"

    def test_nothing_is_written_and_it_is_closed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        signature = self.write_iris(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        self.load(tmp_path, signature).unload()
        assert sorted(tmp_path.rglob("*")) == before
        assert str(tmp_path) not in sys.path
        assert capsys.readouterr().out == "closed\n"

    @pytest.mark.parametrize(
        ("code", "text"),
        [
            ("", "no function or class 'load'"),
            ("load = 1", "no function or class 'load'"),
            ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' .*model.py:1"),
            ("\ndef load(directory):\n    return {}['a']", "KeyError: 'a' .*model.py:3"),
            ("load = object", "TypeError"),
            ("load = str", "'predict', which str of model.py lacks"),
        ],
    )
    def test_code_that_does_not_do(self, tmp_path: Path, code: str, text: str) -> None:
        (tmp_path / self.file).write_text(code)
        with pytest.raises(LoadError, match=text):
            self.load(tmp_path, PREDICT)


class TestScore(TextSuite):
    name = "score"
    file = "score.py"

    def write_iris(self, directory: Path) -> Signature:
        skops.io.dump(iris_model(), directory / "model.skops")
        (directory / self.file).write_text("""
import os
import skops.io

model_name = "model.skops"

def load_model(model_file_name=model_name):
    return skops.io.load(os.path.join(os.path.dirname(os.path.realpath(__file__)), model_file_name))

def predict(data, model=load_model()):
    return {"prediction": model.predict(data).tolist()}
""")
        return PREDICT

    def write_colours(self, directory: Path) -> Signature:
        (directory / self.file).write_text(f"""
def load_model(): return "model"
async def predict(data, model=None):
    pairs = zip(data["colour"], data["size"])
    return {{"prediction": {{"codes": [{COLOURS_TO_CODES} for colour, size in pairs]}}}}
""")
        return Signature((colours_method(TensorSpec("codes", "INT64", (-1,)), name="predict"),))

    def test_an_artifact_that_prepare_wrote(self, tmp_path: Path) -> None:
        from modelyard.oci.prepare import prepare

        rows = iris_rows().astype(np.float64)
        folder = prepare(iris_model(), tmp_path / "oci", example=rows[:3], environment_path="oci://b@n/env")
        signature = Signature(
            (MethodSignature("predict", (TensorSpec("input", "FP64", (-1, 4)),), (LABEL,)),)
        )
        answers = self.load(folder, signature).predict("predict", {"input": rows})
        assert list(answers["label"]) == iris_model().predict(rows).tolist()  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("code", "text"),
        [
            ("def predict(data, model=None): ...", "no function 'load_model'"),
            ("def load_model(): return 1", "no function 'predict'"),
            ("def load_model(): ...\ndef predict(data, model=None): ...", "returned None"),
        ],
    )
    def test_code_that_does_not_do(self, tmp_path: Path, code: str, text: str) -> None:
        (tmp_path / self.file).write_text(code)
        with pytest.raises(LoadError, match=text):
            self.load(tmp_path, PREDICT)

    def test_an_answer_without_a_prediction(self, tmp_path: Path) -> None:
        (tmp_path / self.file).write_text(
            "def load_model(): return 1\ndef predict(data, model=None): return [1]"
        )
        with pytest.raises(TypeError, match="must return {'prediction'"):
            self.load(tmp_path, PREDICT).predict("predict", {"x": iris_rows()})


def save(directory: Path, model: Any, signature: Any = None) -> None:
    """Save without a look at the packages that are installed, which takes longer than all else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about examples that it would like
        mlflow.pyfunc.save_model(
            str(directory / "saved"), python_model=model, pip_requirements=[], signature=signature
        )
    for path in (directory / "saved").iterdir():
        path.rename(directory / path.name)
    (directory / "saved").rmdir()


class TestMlflow(TextSuite):
    name = "mlflow"
    file = "MLmodel"

    def write_iris(self, directory: Path) -> Signature:
        save(directory, Labels((iris_model().coef_, iris_model().intercept_)))
        return PREDICT

    def write_colours(self, directory: Path) -> Signature:
        save(directory, Codes())
        return Signature((colours_method(TensorSpec("codes", "INT64", (-1,)), name="predict"),))

    def test_cut_file(self, tmp_path: Path) -> None:
        # Half of a YAML file may well be a whole one.
        signature = self.write_iris(tmp_path)
        pickled = (tmp_path / "python_model.pkl").read_bytes()
        (tmp_path / "python_model.pkl").write_bytes(pickled[: len(pickled) // 2])
        with pytest.raises(LoadError, match=self.file):
            self.load(tmp_path, signature)

    def test_a_table_in_and_out(self, tmp_path: Path) -> None:
        save(tmp_path, Tables())
        inputs = (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "FP64", (-1,)))
        outputs = (TensorSpec("count", "INT64", (-1,)), TensorSpec("total", "FP64", (-1,)))
        signature = Signature((MethodSignature("predict", inputs, outputs, InputLayout.COLUMNS),))
        answers = self.load(tmp_path, signature).predict(
            "predict", {"a": np.array([1.0, 2.0]), "b": np.array([10.0, 20.0])}
        )
        assert np.asarray(answers["total"]).tolist() == [11.0, 22.0]
        assert np.asarray(answers["count"]).tolist() == [2, 2]

    def test_what_mlflow_refuses_is_the_callers_mistake(self, tmp_path: Path) -> None:
        one = mlflow.models.infer_signature(np.zeros((2, 4)), np.zeros(2))
        save(tmp_path, Labels((iris_model().coef_, iris_model().intercept_)), one)
        with pytest.raises(RejectedInput, match="was refused by MLflow"):
            self.load(tmp_path, PREDICT).predict("predict", {"x": iris_rows()})

    def test_nothing_is_written(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        self.load(tmp_path, signature).predict("predict", {"x": iris_rows()})
        assert sorted(tmp_path.rglob("*")) == before
