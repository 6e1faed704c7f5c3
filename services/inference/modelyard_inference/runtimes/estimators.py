"""What runtimes of estimators share: objects whose methods take a matrix or a table, and give arrays.

Methods are called by the name the signature gives them: `predict`, `predict_proba`, `transform`, `decision_function` ...
With the layout TENSORS a method has one input, the matrix. With COLUMNS the inputs become a pandas DataFrame if the model
was fitted with column names and pandas is installed, else one matrix with the columns in the signature's order. BYTES
reach the model as `str`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, texts
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


class EstimatorRuntime:
    """A loaded estimator."""

    def __init__(self, model: Any, signature: Signature) -> None:
        self._model = model
        self._methods = {method.name: method for method in signature.methods}
        self._calls = {name: getattr(model, name) for name in self._methods}
        self._pandas = pandas() if hasattr(model, "feature_names_in_") else None

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        spec = self._methods[method]
        argument = self._argument(spec, inputs)
        try:
            result = self._calls[method](argument)
        except ValueError:
            _reject_odd_numbers(inputs)
            raise
        return named(spec, result)

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._model = None
        self._calls = {}

    def _argument(self, spec: MethodSignature, inputs: Mapping[str, Array]) -> Any:
        if spec.input_layout is InputLayout.TENSORS:
            name = spec.inputs[0].name
            return readable(name, inputs[name])
        columns = {item.name: readable(item.name, inputs[item.name]) for item in spec.inputs}
        if self._pandas is not None:
            return self._pandas.DataFrame(columns)
        return np.column_stack(list(columns.values()))


def check(model: Any, signature: Signature, *, width: int | None, numbers_only: bool = False) -> None:
    """Refuse a signature that a model cannot keep.

    Args:
        model: the estimator.
        signature: what it promised.
        width: columns that the model takes; None if it does not tell.
        numbers_only: whether the model takes no texts.

    Raises:
        LoadError: naming the method.
    """
    for method in signature.methods:
        if method.name.startswith("_") or not callable(getattr(model, method.name, None)):
            raise LoadError(
                f"the signature names the method {method.name!r}, which {type(model).__name__} lacks"
            )
        if method.input_layout is InputLayout.TENSORS and len(method.inputs) != 1:
            raise LoadError(
                f"method {method.name!r} has {len(method.inputs)} inputs: {type(model).__name__} takes one matrix, "
                "or columns (input_layout COLUMNS)"
            )
        _check_width(method, width)
        texts_in = [spec.name for spec in method.inputs if spec.datatype == "BYTES"]
        if numbers_only and texts_in:
            raise LoadError(
                f"input {texts_in[0]!r} of method {method.name!r} is BYTES, and {type(model).__name__} is served with "
                "numbers only: encode texts before, or log a pipeline of scikit-learn or ONNX that does"
            )


def named(spec: MethodSignature, result: Any) -> Mapping[str, object]:
    """Return the outputs of a method by name: a list's items or a matrix's columns if there are several.

    Raises:
        ValueError: the model gives another number of outputs than the signature names.
    """
    if len(spec.outputs) == 1:
        return {spec.outputs[0].name: dense(result)}
    if isinstance(result, list | tuple):
        parts = [dense(part) for part in result]
    else:
        matrix = dense(result)
        # One column per output, each of the shape [-1].
        parts = list(matrix.T) if matrix.ndim == 2 else [matrix]
    if len(parts) != len(spec.outputs):
        raise ValueError(f"{spec.name} gives {len(parts)} outputs, the signature names {len(spec.outputs)}")
    return {item.name: part for item, part in zip(spec.outputs, parts, strict=True)}


def dense(value: Any) -> Array:
    """Return a model's answer, sparse or of pandas, as an array."""
    for convert in ("toarray", "to_numpy"):
        if hasattr(value, convert):
            return np.asarray(getattr(value, convert)())
    return np.asarray(value)


def readable(name: str, array: Array) -> Array:
    """Return an input with texts instead of bytes.

    Raises:
        RejectedInput: an element is not UTF-8.
    """
    if array.dtype.kind != "O":
        return array
    try:
        return texts(array)
    except UnicodeDecodeError as error:
        raise RejectedInput(name, "holds bytes that are not UTF-8 text") from error


def pandas() -> Any:
    """Return pandas; None if it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ImportError:
        return None


def first_line(error: BaseException) -> str:
    """Return what an error of a library says, short enough for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def _check_width(method: MethodSignature, wanted: int | None) -> None:
    if method.input_layout is InputLayout.COLUMNS:
        width = len(method.inputs)
    else:
        shape = method.inputs[0].shape
        width = shape[1] if len(shape) == 2 else -1
    if wanted is not None and width not in (-1, wanted):
        raise LoadError(
            f"method {method.name!r} takes {width} columns by its signature, the model takes {wanted}"
        )


def _reject_odd_numbers(inputs: Mapping[str, Array]) -> None:
    """Blame the caller for what most estimators refuse: NaN, infinity, or more than a float32 holds."""
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not bool(np.all(np.abs(array) <= _FLOAT32_MAX)):
            raise RejectedInput(name, "holds NaN, infinity or a number too large for this model")
