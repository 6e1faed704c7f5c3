"""Modules of PyTorch: logged, loaded and asked as every other model. `make test-frameworks`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from modelyard import errors  # noqa: E402
from modelyard.flavors import Prepared, prepare  # noqa: E402
from modelyard_inference.runtimes import LoadError, devices  # noqa: E402
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec  # noqa: E402
from tests.conformance.replicas import iris_model, iris_rows  # noqa: E402
from tests.conformance.runtime_suite import RuntimeSuite  # noqa: E402

# PyTorch's, about its own insides, when it writes and reads programs.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)

LABELS = Signature(
    (MethodSignature("predict", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("label", "INT64", (-1,)),)),)
)


class Labels(torch.nn.Module):
    """The classifier of irises."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.linear.weight.data = torch.from_numpy(iris_model().coef_.astype(np.float32))
        self.linear.bias.data = torch.from_numpy(iris_model().intercept_.astype(np.float32))

    def forward(self, x: Any) -> Any:
        return self.linear(x).argmax(dim=1)


class Several(torch.nn.Module):
    """Two inputs, several outputs by name."""

    def forward(self, a: Any, b: Any) -> Any:
        return {"total": a + b, "half": (a / 2).to(torch.bfloat16), "positive": a > 0}


@functools.cache
def labels() -> Any:
    return Labels().eval()


def logged(model: Any, folder: Path, example: Any) -> Prepared:
    return prepare(model, folder, runtime=None, example=example, signature=None)


class TestTorch(RuntimeSuite):
    name = "torch"
    file = "model.pt2"
    any_name = True

    def write_iris(self, directory: Path) -> Signature:
        logged(labels(), directory, iris_rows()[:1])
        return LABELS

    def labels(self, rows: Any) -> list[int]:
        answers: list[int] = labels()(torch.from_numpy(rows.copy())).tolist()
        return answers

    def test_what_is_logged(self, tmp_path: Path) -> None:
        prepared = logged(labels(), tmp_path, iris_rows()[:1])
        assert (prepared.path, prepared.runtime) == (tmp_path / "model.pt2", "torch")
        (method,) = prepared.signature.methods  # type: ignore[union-attr]
        assert (method.inputs[0].shape, method.outputs[0].datatype) == ((-1, 4), "INT64")
        assert (prepared.metadata.framework, prepared.metadata.algorithm) == ("pytorch", "Labels")
        with pytest.raises(errors.InvalidArgument, match="example: give some rows"):
            logged(labels(), tmp_path, None)

    def test_several_inputs_and_outputs(self, tmp_path: Path) -> None:
        program = torch.export.export(
            Several(),
            (torch.randn(3, 2), torch.randn(3, 2)),
            dynamic_shapes=({0: torch.export.Dim("n")}, {0: torch.export.Dim("n")}),
        )
        torch.export.save(program, tmp_path / self.file)
        inputs = (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2)))
        outputs = (TensorSpec("half", "BF16", (-1, 2)), TensorSpec("positive", "BOOL", (-1, 2)))
        runtime = self.load(tmp_path, Signature((MethodSignature("predict", inputs, outputs),)))
        a, b = (np.random.default_rng(seed).normal(size=(5, 2)).astype(np.float32) for seed in (1, 2))
        answers = runtime.predict("predict", {"b": b, "a": a})
        np.testing.assert_array_equal(np.asarray(answers["total"]), a + b)
        np.testing.assert_array_equal(np.asarray(answers["positive"]), a > 0)
        expected = torch.from_numpy(a / 2).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(np.asarray(answers["half"]), expected)

    def test_a_module_is_traced_where_it_is_and_saved_for_the_cpu(self, tmp_path: Path) -> None:
        """That of the device without data gets as far as to be moved."""
        with pytest.raises(errors.InvalidArgument, match="out of meta tensor"):
            logged(Labels().to("meta"), tmp_path, iris_rows()[:1])

    def test_a_program_that_is_elsewhere_is_copied_to_the_cpu_and_stays(self, tmp_path: Path) -> None:
        """As far as that goes with the device without data: the copy is written, read and moved."""
        rows = torch.zeros(2, 4, device="meta")
        program = torch.export.export(
            Labels().to("meta"), (rows,), dynamic_shapes=({0: torch.export.Dim("n")},)
        )
        with pytest.raises(NotImplementedError, match="out of meta tensor"):
            logged(program, tmp_path, iris_rows()[:1])
        assert {each.device.type for each in program.state_dict.values()} == {"meta"}

    def test_all_of_it_goes_where_the_device_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no GPU here: PyTorch's device without data, which refuses to meet the CPU, takes its place."""
        signature = self.write_iris(tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert devices.device() == torch.device("cuda", 0)
        monkeypatch.setattr("modelyard_inference.runtimes.torch.device", lambda: torch.device("meta"))
        runtime = self.load(tmp_path, signature)
        with pytest.raises(NotImplementedError, match="out of meta tensor"):  # the answer, on its way back
            runtime.predict("predict", {"x": iris_rows()[:2]})

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            (TensorSpec("x", "FP64", (-1, 4)), "'x' of the program is FP32, the signature says FP64"),
            (TensorSpec("x", "FP32", (-1, 5)), "'x' of the program has the shape"),
            (TensorSpec("x", "FP32", (-1,)), "'x' of the program has the shape"),
        ],
    )
    def test_signatures_that_the_program_cannot_keep(
        self, tmp_path: Path, spec: TensorSpec, text: str
    ) -> None:
        self.write_iris(tmp_path)
        with pytest.raises(LoadError, match=text):
            self.load(tmp_path, Signature((MethodSignature("predict", (spec,), LABELS.methods[0].outputs),)))
