"""MLflow models by their Python function: the artifact is a folder that `mlflow.*.save_model` wrote, with `MLmodel`.

The method `predict` gets a DataFrame with the layout COLUMNS, else the one tensor as an array, or several as a dict by name.
Loading runs code that the artifact names or pickled, whatever the flavor.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Nothing of MLflow's own goes out from a replica.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about its own type hints
    import mlflow
    import mlflow.pyfunc
import pandas as pd

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.code import failed
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.estimators import first_line, named, readable
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature

FILE: Final = "MLmodel"
METHOD: Final = "predict"


class MlflowRuntime:
    """A loaded Python function."""

    def __init__(self, model: Any, method: MethodSignature) -> None:
        self._model = model
        self._method = method

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        del method  # there is only one
        try:
            result = self._model.predict(self._argument(inputs))
        except mlflow.MlflowException as error:  # by its own signature, mostly of types
            raise RejectedInput(
                self._method.inputs[0].name, f"was refused by MLflow: {first_line(error)}"
            ) from error
        if isinstance(result, Mapping):
            return result
        names = [str(column) for column in getattr(result, "columns", ())]
        if names and set(names) >= {spec.name for spec in self._method.outputs}:
            return {str(column): result[column].to_numpy() for column in result.columns}
        return named(self._method, result)

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._model = None

    def _argument(self, inputs: Mapping[str, Array]) -> Any:
        values = {spec.name: readable(spec.name, inputs[spec.name]) for spec in self._method.inputs}
        if self._method.input_layout is InputLayout.COLUMNS:
            return pd.DataFrame(values)
        return next(iter(values.values())) if len(values) == 1 else values


def load(directory: Path, signature: Signature, *, threads: int = 1) -> MlflowRuntime:
    """Load the model; see `Load`. Its threads are those of the framework behind it."""
    del threads
    if not (directory / FILE).is_file():
        raise LoadError(f"the artifact has no {FILE}, which the MLflow runtime loads")
    names = [method.name for method in signature.methods]
    if names != [METHOD]:
        raise LoadError(
            f"the signature names {', '.join(names)}; a model of MLflow has the one method {METHOD!r}"
        )
    sys.dont_write_bytecode = True  # into the folder of the artifact, which is checked against its digest
    try:
        model = mlflow.pyfunc.load_model(str(directory))
    except Exception as error:  # anybody's code
        raise failed(FILE, error) from error
    return MlflowRuntime(model, signature.methods[0])
