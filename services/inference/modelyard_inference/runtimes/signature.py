"""What a model takes and gives: the signature of a version, without protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

# What numpy makes of them is in `datatypes`; the control plane reads signatures without loading numpy.
DATATYPE_NAMES: Final = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip


class InputLayout(StrEnum):
    """How a method takes its inputs in Python."""

    TENSORS = "TENSORS"
    COLUMNS = "COLUMNS"


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output; a dimension of -1 is of any size, and a first one of -1 counts rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether a concrete shape is one of this tensor's."""
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class MethodSignature:
    """One callable of a model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_layout: InputLayout = InputLayout.TENSORS

    @property
    def row_wise(self) -> bool:
        """Whether every tensor's first dimension counts rows, so that requests may share one run."""
        return all(spec.shape and spec.shape[0] == -1 for spec in (*self.inputs, *self.outputs))


@dataclass(frozen=True)
class Signature:
    """The methods a version offers; the first one is what a plain prediction calls."""

    methods: tuple[MethodSignature, ...]

    def method(self, name: str) -> MethodSignature:
        """Return a method by name.

        Raises:
            KeyError: if the model has no such method.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(name)

    @classmethod
    def from_json(cls, value: Any) -> Signature:
        """Read the JSON form `{"methods": [{"name", "inputs", "outputs", "input_layout"}]}`.

        Raises:
            ValueError: naming the field that is missing or wrong.
        """
        methods = tuple(
            _method(item, f"signature.methods[{index}]")
            for index, item in enumerate(_items(value, "methods", "signature"))
        )
        if not methods:
            raise ValueError("signature.methods: must name at least one method")
        if len({method.name for method in methods}) != len(methods):
            raise ValueError("signature.methods: names must be unique")
        return cls(methods)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `from_json` reads."""
        return {
            "methods": [
                {
                    "name": method.name,
                    "inputs": [_spec_json(spec) for spec in method.inputs],
                    "outputs": [_spec_json(spec) for spec in method.outputs],
                    "input_layout": method.input_layout.value,
                }
                for method in self.methods
            ]
        }


def _method(value: Any, field: str) -> MethodSignature:
    layout = str(_get(value, "input_layout", field, default="TENSORS")).removeprefix("INPUT_LAYOUT_")
    if layout == "UNSPECIFIED":
        layout = "TENSORS"
    if layout not in InputLayout.__members__:
        raise ValueError(f"{field}.input_layout: must be TENSORS or COLUMNS, not {layout!r}")
    return MethodSignature(
        name=_text(value, "name", field),
        inputs=_specs(value, "inputs", field),
        outputs=_specs(value, "outputs", field),
        input_layout=InputLayout(layout),
    )


def _specs(value: Any, key: str, field: str) -> tuple[TensorSpec, ...]:
    specs = tuple(
        _spec(item, f"{field}.{key}[{index}]") for index, item in enumerate(_items(value, key, field))
    )
    if not specs:
        raise ValueError(f"{field}.{key}: must name at least one tensor")
    if len({spec.name for spec in specs}) != len(specs):
        raise ValueError(f"{field}.{key}: names must be unique")
    return specs


def _spec(value: Any, field: str) -> TensorSpec:
    datatype = _text(value, "datatype", field)
    if datatype not in DATATYPE_NAMES:
        raise ValueError(f"{field}.datatype: {datatype!r} is none of {', '.join(DATATYPE_NAMES)}")
    shape = []
    for size in _items(value, "shape", field):
        # Protobuf's JSON form writes int64 as text.
        number = int(size) if isinstance(size, str) and size.lstrip("-").isdigit() else size
        if not isinstance(number, int) or isinstance(number, bool) or number < -1 or number == 0:
            raise ValueError(f"{field}.shape: every dimension must be -1 or at least 1, not {size!r}")
        shape.append(number)
    return TensorSpec(_text(value, "name", field), datatype, tuple(shape))


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _get(value: Any, key: str, field: str, *, default: Any = None) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: must be an object")  # noqa: TRY004  one error type for a bad file
    return value.get(key, default)


def _text(value: Any, key: str, field: str) -> str:
    text = _get(value, key, field)
    if not isinstance(text, str) or not text:
        raise ValueError(f"{field}.{key}: must be text that is not empty")
    return text


def _items(value: Any, key: str, field: str) -> Sequence[Any]:
    items = _get(value, key, field, default=[])
    if not isinstance(items, list | tuple):
        raise ValueError(f"{field}.{key}: must be a list")  # noqa: TRY004  one error type for a bad file
    return items
