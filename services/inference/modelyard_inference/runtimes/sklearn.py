"""scikit-learn models, saved by skops as `model.skops` at the root of the artifact.

skops builds only types it knows. Types that it does not trust by itself are accepted if they are classes of scikit-learn
or NumPy; anything else, functions included, fails the load by name: a model must not bring code along.

Methods are called by the name the signature gives them: `predict`, `predict_proba`, `transform`, `decision_function` ...
With the layout TENSORS a method has one input, the matrix. With COLUMNS the inputs become a pandas DataFrame if the model
was fitted with column names and pandas is installed, else one matrix with the columns in the signature's order. BYTES
reach the model as `str`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import sklearn
import skops.io

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, texts
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature

FILE: Final = "model.skops"
_TRUSTED_PACKAGES: Final = ("sklearn", "numpy")
_NOT_IMPORTED: Final = frozenset({"tests", "conftest", "externals", "datasets", "experimental"})
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


class SklearnRuntime:
    """A loaded scikit-learn model."""

    def __init__(self, model: Any, signature: Signature) -> None:
        self._model = model
        self._methods = {method.name: method for method in signature.methods}
        self._calls = {name: getattr(model, name) for name in self._methods}
        self._pandas = _pandas() if hasattr(model, "feature_names_in_") else None

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        spec = self._methods[method]
        argument = self._argument(spec, inputs)
        try:
            result = self._calls[method](argument)
        except ValueError:
            _reject_odd_numbers(inputs)
            raise
        return _outputs(spec, result)

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._model = None
        self._calls = {}

    def _argument(self, spec: MethodSignature, inputs: Mapping[str, Array]) -> Any:
        if spec.input_layout is InputLayout.TENSORS:
            name = spec.inputs[0].name
            return _readable(name, inputs[name])
        columns = {item.name: _readable(item.name, inputs[item.name]) for item in spec.inputs}
        if self._pandas is not None:
            return self._pandas.DataFrame(columns)
        return np.column_stack(list(columns.values()))


def load(directory: Path, signature: Signature, *, threads: int = 1) -> SklearnRuntime:
    """Load `model.skops`; see `Load`. scikit-learn's threads are those of the process, so `threads` changes nothing."""
    del threads
    path = directory / FILE
    if not path.is_file():
        raise LoadError(f"the artifact has no {FILE}, which the scikit-learn runtime loads")
    model = _read(path)
    for method in signature.methods:
        if method.name.startswith("_") or not callable(getattr(model, method.name, None)):
            raise LoadError(
                f"the signature names the method {method.name!r}, which {type(model).__name__} lacks"
            )
        if method.input_layout is InputLayout.TENSORS and len(method.inputs) != 1:
            raise LoadError(
                f"method {method.name!r} has {len(method.inputs)} inputs: "
                "a scikit-learn method takes one matrix, or columns (input_layout COLUMNS)"
            )
        _check_width(model, method)
    # Whether names are there is the signature's business; a warning per prediction helps nobody.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    return SklearnRuntime(model, signature)


def _read(path: Path) -> Any:
    try:
        unknown = skops.io.get_untrusted_types(file=path)
    except Exception as error:  # the reader raises many kinds for a broken file
        raise LoadError(f"{path.name} cannot be read as a skops file: {_first_line(error)}") from error
    refused = sorted(name for name in unknown if not _is_trusted_class(name))
    if refused:
        raise LoadError(
            f"{path.name} holds types that are not of scikit-learn or NumPy and are not loaded: {', '.join(refused)}"
        )
    with warnings.catch_warnings():
        # skops warns when versions differ; that the model works is shown by the warm-up.
        warnings.simplefilter("ignore")
        try:
            return skops.io.load(path, trusted=unknown)
        except Exception as error:  # as above
            raise LoadError(
                f"{path.name} cannot be loaded by scikit-learn {sklearn.__version__}: {_first_line(error)}"
            ) from error


def _check_width(model: Any, method: MethodSignature) -> None:
    wanted = getattr(model, "n_features_in_", None)
    if method.input_layout is InputLayout.COLUMNS:
        width = len(method.inputs)
    else:
        shape = method.inputs[0].shape
        width = shape[1] if len(shape) == 2 else -1
    if wanted is not None and width not in (-1, wanted):
        raise LoadError(
            f"method {method.name!r} takes {width} columns by its signature, the model takes {wanted}"
        )


def _is_trusted_class(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    # The file chooses the module, so nothing is imported that does more than define an estimator.
    if parts[0] not in _TRUSTED_PACKAGES or any(
        part.startswith("__") or part in _NOT_IMPORTED for part in parts
    ):
        return False
    if parts[0] == "numpy":
        return isinstance(getattr(sys.modules.get(module), attribute, None), type)
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ImportError:
        return None


def _readable(name: str, array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    try:
        return texts(array)
    except UnicodeDecodeError as error:
        raise RejectedInput(name, "holds bytes that are not UTF-8 text") from error


def _reject_odd_numbers(inputs: Mapping[str, Array]) -> None:
    """Blame the caller for what most estimators refuse: NaN, infinity, or more than a float32 holds."""
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not bool(np.all(np.abs(array) <= _FLOAT32_MAX)):
            raise RejectedInput(name, "holds NaN, infinity or a number too large for this model")


def _outputs(spec: MethodSignature, result: Any) -> Mapping[str, object]:
    if len(spec.outputs) == 1:
        return {spec.outputs[0].name: _dense(result)}
    if isinstance(result, list | tuple):
        parts = [_dense(part) for part in result]
    else:
        matrix = _dense(result)
        # One column per output, each of the shape [-1].
        parts = list(matrix.T) if matrix.ndim == 2 else [matrix]
    if len(parts) != len(spec.outputs):
        raise ValueError(f"{spec.name} gives {len(parts)} outputs, the signature names {len(spec.outputs)}")
    return {item.name: part for item, part in zip(spec.outputs, parts, strict=True)}


def _dense(value: Any) -> Array:
    for convert in ("toarray", "to_numpy"):
        if hasattr(value, convert):
            return np.asarray(getattr(value, convert)())
    return np.asarray(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
