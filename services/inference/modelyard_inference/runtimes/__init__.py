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
}
"""Module of each runtime by its name, which is also the name of the extra that installs what it needs."""


def find(name: str) -> Load:
    """Return the `load` of a runtime, importing it only now.

    Raises:
        LoadError: if there is no such runtime or its packages are not installed.
    """
    if name not in RUNTIMES:
        raise LoadError(f"runtime {name!r} is none of {', '.join(sorted(RUNTIMES))}")
    try:
        module = importlib.import_module(RUNTIMES[name])
    except ImportError as error:
        raise LoadError(f"runtime {name!r} needs {error.name}: pip install 'modelyard[{name}]'") from error
    return cast("Load", module.load)
