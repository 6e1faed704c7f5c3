"""OCI's `score.py` at the root of the artifact: `load_model()` once, then `predict(data, model)` for every request.

`data` is what OCI's model deployments would hand over after parsing JSON: one tensor as nested lists; several, or the layout
COLUMNS, as a dict of lists by name. BYTES are texts there. The answer is `{"prediction": ...}`, in which one output is a list
and several are a dict by name. `async def predict` works too. This runs the artifact's code.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.code import call, forget, import_file
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.estimators import named, readable
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature

FILE: Final = "score.py"
METHOD: Final = "predict"
ANSWER: Final = "prediction"


class ScoreRuntime:
    """The functions of a score.py and what its `load_model` returned."""

    def __init__(self, predict: Any, model: Any, method: MethodSignature, directory: Path) -> None:
        self._predict = predict
        self._model = model
        self._method = method
        self._directory = directory

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        del method  # there is only one
        lists = {spec.name: readable(spec.name, inputs[spec.name]).tolist() for spec in self._method.inputs}
        alone = self._method.input_layout is InputLayout.TENSORS and len(lists) == 1
        result = self._predict(next(iter(lists.values())) if alone else lists, self._model)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        if not isinstance(result, Mapping) or ANSWER not in result:
            raise TypeError(
                f"predict of {FILE} must return {{{ANSWER!r}: ...}}, not a {type(result).__name__}"
            )
        answer = result[ANSWER]
        return answer if isinstance(answer, Mapping) else named(self._method, answer)

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._model = None
        forget(self._directory)


def load(directory: Path, signature: Signature, *, threads: int = 1) -> ScoreRuntime:
    """Load the model by its score.py; see `Load`. `threads` is the model's own business."""
    del threads
    names = [method.name for method in signature.methods]
    if names != [METHOD]:
        raise LoadError(f"the signature names {', '.join(names)}; a {FILE} has the one method {METHOD!r}")
    module = import_file(directory / FILE)
    for function in ("load_model", METHOD):
        if not callable(getattr(module, function, None)):
            raise LoadError(f"{FILE} has no function {function!r}")
    model = call(f"load_model of {FILE}", module.load_model)
    if model is None:
        raise LoadError(f"load_model of {FILE} returned None, where OCI asks for the model")
    return ScoreRuntime(module.predict, model, signature.methods[0], directory)


async def _awaited(result: Any) -> Any:
    return await result
