"""Models of one's own: `model.py` at the root of the artifact, with a function (or class) `load` of one argument.

    class Model:
        def __init__(self, directory: pathlib.Path) -> None: ...   # reads weights, vocabularies ... of the artifact
        def predict(self, inputs): return {"label": inputs["x"].argmax(axis=1)}

    load = Model

Methods are called by the name the signature gives them, with all inputs by name as numpy arrays (BYTES as object arrays of
`bytes`), and return all outputs by name, or the one output itself. A ValueError is told to the caller as the refusal of its
input. `close()`, if there is one, is called at the end. This runs the artifact's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.code import call, forget, import_file
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.estimators import first_line
from modelyard_inference.runtimes.signature import Signature

FILE: Final = "model.py"


class PythonRuntime:
    """An object of the artifact's own class."""

    def __init__(self, model: Any, signature: Signature, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._methods = {method.name: method for method in signature.methods}

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        spec = self._methods[method]
        try:
            result = getattr(self._model, method)(dict(inputs))
        except ValueError as error:
            raise RejectedInput(
                spec.inputs[0].name, f"was refused by the model: {first_line(error)}"
            ) from error
        if isinstance(result, Mapping):
            return result
        if len(spec.outputs) == 1:
            return {spec.outputs[0].name: result}
        raise TypeError(
            f"{method} gives a {type(result).__name__}; for several outputs it must return a dict of arrays by name"
        )

    def unload(self) -> None:
        """See `Runtime.unload`."""
        model, self._model = self._model, None
        if callable(getattr(model, "close", None)):
            model.close()
        forget(self._directory)


def load(directory: Path, signature: Signature, *, threads: int = 1) -> PythonRuntime:
    """Load the object; see `Load`. `threads` is the model's own business."""
    del threads
    module = import_file(directory / FILE)
    make = getattr(module, "load", None)
    if not callable(make):
        raise LoadError(f"{FILE} has no function or class 'load' that takes the artifact's folder")
    model = call(f"load of {FILE}", make, directory)
    for method in signature.methods:
        if method.name.startswith("_") or not callable(getattr(model, method.name, None)):
            raise LoadError(
                f"the signature names the method {method.name!r}, which {type(model).__name__} of {FILE} lacks"
            )
    return PythonRuntime(model, signature, directory)
