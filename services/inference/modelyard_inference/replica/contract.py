"""The checks every prediction passes, whichever form it came in: does it fit the model that runs here?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.errors import BadVersion, InvalidTensor, UnknownModel
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.signature import MethodSignature, TensorSpec
from modelyard_kit.errors import InvalidField

METHOD_PARAMETER: Final = "method"
"""Request parameter that names the method; without it the first method of the signature is called."""
_VERSION_DIGITS: Final = 18
_MICROSECONDS: Final = 1_000_000

ParameterValue = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One checked request."""

    method: str
    inputs: Mapping[str, Array]
    rows: int
    """What it counts in the queue."""
    key: Hashable
    """Requests of equal keys may share one run; None means it must run alone."""
    wanted: tuple[TensorSpec, ...]
    """The outputs to answer, in order."""
    id: str
    timeout: float | None
    """Seconds the caller wants to wait at most, from the parameter `timeout`."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the parameters of a request mean."""

    method: str = ""
    timeout: float | None = None


class Method:
    """One method of the model and the checks of its tensors."""

    def __init__(self, model_name: str, signature: MethodSignature) -> None:
        self.name = signature.name
        self.signature = signature
        self.inputs = {spec.name: spec for spec in signature.inputs}
        self.outputs = {spec.name: spec for spec in signature.outputs}
        self._model_name = model_name
        self._row_wise = signature.row_wise
        self._row_inputs = tuple(spec.name for spec in signature.inputs if spec.shape and spec.shape[0] == -1)

    def input(self, name: str) -> TensorSpec:
        """Return the specification of an input by its name.

        Raises:
            InvalidTensor: if the model has no such input.
        """
        spec = self.inputs.get(name)
        if spec is None:
            raise InvalidTensor(name, f"unexpected inference input '{name}' for model '{self._model_name}'")
        return spec

    def check_input(self, name: str, datatype: str, shape: Sequence[int]) -> TensorSpec:
        """Return the specification of an input that a request holds.

        Raises:
            InvalidTensor: if the model has no such input, or one of another type or shape.
        """
        spec = self.input(name)
        if datatype != spec.datatype:
            raise InvalidTensor(
                name,
                f"inference input '{name}' data-type is '{datatype}', "
                f"but model '{self._model_name}' expects '{spec.datatype}'",
            )
        if not spec.fits(shape) or min(shape, default=1) < 0:
            raise InvalidTensor(
                name,
                f"unexpected shape for input '{name}' for model '{self._model_name}'. "
                f"Expected {_dimensions(spec.shape)}, got {_dimensions(shape)}",
            )
        return spec

    def check_size(self, name: str, expected: int, actual: int) -> None:
        """Refuse an input with another number of bytes than its shape takes."""
        if expected != actual:
            raise InvalidTensor(
                name,
                f"input byte size mismatch for input '{name}' for model '{self._model_name}'. "
                f"Expected {expected}, got {actual}",
            )

    def select(self, names: Sequence[str]) -> tuple[TensorSpec, ...]:
        """Return the outputs to answer: those named, in that order, or all."""
        if not names:
            return self.signature.outputs
        for name in names:
            if name not in self.outputs:
                raise InvalidTensor(
                    name, f"unexpected inference output '{name}' for model '{self._model_name}'"
                )
        if len(set(names)) != len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise InvalidTensor(name, f"output '{name}' is requested more than once")
        return tuple(self.outputs[name] for name in names)

    def predict(
        self,
        inputs: Mapping[str, Array],
        *,
        wanted: tuple[TensorSpec, ...],
        request_id: str,
        timeout: float | None,
    ) -> Prediction:
        """Return the request as one to run.

        Raises:
            InvalidTensor: if inputs are missing or do not agree on the number of rows.
        """
        if len(inputs) != len(self.inputs):
            raise self._missing(inputs)
        rows = self._rows(inputs)
        key: Hashable = None
        if self._row_wise:
            key = (self.name, *(inputs[name].shape[1:] for name in self._row_inputs))
        return Prediction(self.name, inputs, rows, key, wanted, request_id, timeout)

    def _rows(self, inputs: Mapping[str, Array]) -> int:
        rows = -1
        for name in self._row_inputs:
            count = inputs[name].shape[0]
            if count == 0:
                raise InvalidTensor(
                    name, f"inference request batch-size must be >= 1 for '{self._model_name}'"
                )
            if rows not in (-1, count) and self._row_wise:
                raise InvalidTensor(
                    name, f"input '{name}' batch size does not match other inputs for '{self._model_name}'"
                )
            rows = max(rows, count)
        return max(rows, 1)

    def _missing(self, inputs: Mapping[str, Array]) -> InvalidTensor:
        missing = [name for name in self.inputs if name not in inputs]
        return InvalidTensor(
            missing[0],
            f"expected {len(self.inputs)} inputs but got {len(inputs)} inputs for model '{self._model_name}'. "
            f"Got input(s) {_names(inputs)}, but missing required input(s) {_names(missing)}. "
            "Please provide all required input(s).",
        )


class Contract:
    """What this replica answers: one deployment, one version, the methods of its signature."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.config = config
        self.name = config.deployment
        self.version = str(config.version)
        self.methods = {item.name: Method(config.deployment, item) for item in config.signature.methods}
        self.first = next(iter(self.methods.values()))

    def check_model(self, name: str, version: str) -> None:
        """Refuse a request for another deployment or version.

        Raises:
            UnknownModel: if it is another one.
            BadVersion: if the version is no positive whole number.
        """
        if name != self.name:
            raise UnknownModel(name)
        if not self.is_version(version):
            raise UnknownModel(name, version)

    def is_version(self, version: str) -> bool:
        """Tell whether a version of a request is the one that runs here; empty means any."""
        if not version or version == self.version:
            return True
        if (
            not (version.isascii() and version.isdigit() and len(version) <= _VERSION_DIGITS)
            or int(version) < 1
        ):
            raise BadVersion(version)
        return int(version) == self.config.version

    def method(self, name: str) -> Method:
        """Return a method by name, the first one for an empty name."""
        if not name:
            return self.first
        method = self.methods.get(name)
        if method is None:
            raise InvalidField(
                f"parameters.{METHOD_PARAMETER}", f"{name!r} is none of the methods {', '.join(self.methods)}"
            )
        return method


def read_parameters(parameters: Mapping[str, ParameterValue]) -> Parameters:
    """Return what the parameters of a request ask for; ones this server has no meaning for are ignored.

    Raises:
        InvalidField: for parameters that the protocol reserves and this server does not serve.
    """
    method, timeout = "", None
    for name, value in parameters.items():
        if name == METHOD_PARAMETER:
            if not isinstance(value, str) or not value:
                raise InvalidField(f"parameters.{name}", "must be text that names a method")
            method = value
        elif name == "timeout":
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidField("parameters.timeout", "must be a whole number of microseconds")
            timeout = value / _MICROSECONDS if value else None
        elif name in _REFUSED and value:  # 0 and false say "not asked for"
            raise InvalidField(f"parameters.{name}", _REFUSED[name])
        elif name.startswith("triton_"):
            raise InvalidField(
                f"parameters.{name}",
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
            )
        elif name.startswith("modelyard_"):
            raise InvalidField(f"parameters.{name}", "names starting with 'modelyard_' are reserved")
    return Parameters(method, timeout)


def check_tensor_parameters(kind: str, tensor: str, names: Sequence[str]) -> None:
    """Refuse parameters of a tensor that would change how its data is read or answered."""
    for name in names:
        if name in _REFUSED_OF_TENSORS:
            raise InvalidTensor(
                tensor,
                f"parameter '{name}' of {kind} '{tensor}' is not supported: {_REFUSED_OF_TENSORS[name]}",
            )


# `priority` is a hint of Triton's scheduler without effect for a model without priority levels, there as here.
_REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("sequence_id", "sequence_start", "sequence_end"), "sequences are not supported"),
    "headers": "is reserved by the protocol and should not be specified",
    "binary_data_output": "binary data in REST is not supported: ask for JSON or use gRPC",
}
_REFUSED_OF_TENSORS: Final[Mapping[str, str]] = {
    "classification": "ask for the output itself",
    **dict.fromkeys(
        ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"),
        "send the data in the request",
    ),
    "binary_data": "send and ask for JSON, or use gRPC",
    "binary_data_size": "send and ask for JSON, or use gRPC",
}


def _dimensions(shape: Sequence[int]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"


def _names(names: Mapping[str, Array] | Sequence[str]) -> str:
    return f"[{','.join(repr(name) for name in names)}]"
