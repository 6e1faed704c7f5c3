"""Runtimes: what turns the files of an artifact into something that predicts.

A runtime is a module in this package that offers `load`. It knows one file format and nothing about serving: no network,
no queue, no protobuf. `predict` is called by one thread at a time, never by the event loop.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from modelyard_inference.runtimes.signature import Signature

if TYPE_CHECKING:
    from modelyard_inference.runtimes.datatypes import Array  # numpy, which the control plane never needs


class LoadError(Exception):
    """An artifact cannot be loaded; the text says why and what to do, for the owner of the model."""


class RejectedInput(Exception):
    """The model refuses the values of an input, which is the caller's mistake and not the model's."""

    def __init__(self, tensor: str, problem: str) -> None:
        super().__init__(f"input '{tensor}': {problem}")
        self.tensor = tensor
        self.problem = problem


class Runtime(Protocol):
    """A loaded model."""

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """Run a method of the signature.

        Args:
            method: Name of the method.
            inputs: Every input of the method by name, already of the signature's data type and shape. Arrays may be
                read-only. BYTES are object arrays of `bytes`.

        Returns:
            Every output of the method by name, as anything numpy can make an array of.

        Raises:
            RejectedInput: if the values are nothing the model can be asked about.
        """
        ...

    def unload(self) -> None:
        """Let go of the model; nothing is called after this."""
        ...


class Load(Protocol):
    """The function `load` of a runtime's module."""

    def __call__(self, directory: Path, signature: Signature, *, threads: int = 1) -> Runtime:
        """Load the model.

        Args:
            directory: Local folder with the files of the artifact.
            signature: What the model promised; checked as far as the format allows.
            threads: Threads one prediction may use.

        Raises:
            LoadError: if that cannot be done.
        """
        ...


RUNTIMES: Final[Mapping[str, str]] = {
    "sklearn": "modelyard_inference.runtimes.sklearn",
    "onnx": "modelyard_inference.runtimes.onnx",
    "xgboost": "modelyard_inference.runtimes.xgboost",
    "lightgbm": "modelyard_inference.runtimes.lightgbm",
    "transformers": "modelyard_inference.runtimes.transformers",
    "torch": "modelyard_inference.runtimes.torch",
    "mlflow": "modelyard_inference.runtimes.mlflow",
    "score": "modelyard_inference.runtimes.score",
    "python": "modelyard_inference.runtimes.python",
}
"""Module of each runtime by its name, which is also the name of the extra that installs what it needs, if it needs anything."""

REMOTE: Final = "remote"
"""Runtime of versions whose model another server runs, so that nothing is loaded here; see `replica.remote`."""

RUN_CODE: Final = frozenset({"torch", "mlflow", "score", "python"})
"""Runtimes for which an artifact is a program: whoever can upload one runs anything with the rights of a replica."""


def find(name: str, *, allow_code: bool = False) -> Load:
    """Return the `load` of a runtime, importing it only now.

    Args:
        name: of the runtime.
        allow_code: whether code that an artifact brings may run here.

    Raises:
        LoadError: if there is no such runtime, it may not be used, or its packages are not installed.
    """
    if name not in RUNTIMES:
        raise LoadError(f"runtime {name!r} is none of {', '.join(sorted([*RUNTIMES, REMOTE]))}")
    if name in RUN_CODE and not allow_code:
        raise LoadError(
            f"runtime {name!r} runs code that the artifact brings, which this installation does not allow: set "
            "MODELYARD_ALLOW_MODEL_CODE=true for the inference service if you trust everybody who may upload, "
            "or log the model in a format that holds no code, such as ONNX"
        )
    try:
        module = importlib.import_module(RUNTIMES[name])
    except ImportError as error:
        raise LoadError(f"runtime {name!r} needs {error.name}: pip install 'modelyard[{name}]'") from error
    return cast("Load", module.load)
