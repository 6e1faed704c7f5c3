"""What a model takes and gives, told from examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.tensors import TensorError, datatype_of  # says what is missing when numpy is  # isort: skip

import numpy as np

from modelyard.types import InputLayout, MethodSignature, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]


def infer_signature(inputs: Any, outputs: Any, method: str = "predict") -> Signature:
    """The signature of one method from an example of what goes in and what comes out.

    Args:
        inputs: An array or nested lists (one tensor called `input`), a dict of arrays (one tensor each), or a
            DataFrame (one tensor for each column, and the method takes a table).
        outputs: The same; a plain array is called `output`, several in a tuple `output_0`, `output_1` …
        method: Name of the method.

    Raises:
        TensorError: a value has no rows, or a type that tensors do not have.
    """
    return Signature((infer_method(inputs, outputs, method),))


def infer_method(inputs: Any, outputs: Any, method: str) -> MethodSignature:
    """As `infer_signature`, for a signature of several methods."""
    layout = InputLayout.COLUMNS if is_table(inputs) else InputLayout.TENSORS
    return MethodSignature(method, tensor_specs(inputs, "input"), tensor_specs(outputs, "output"), layout)


def tensor_specs(value: Any, name: str) -> tuple[TensorSpec, ...]:
    """One spec for each array in the value; a plain array is called `name`."""
    if isinstance(value, tuple):
        value = {f"{name}_{i}": item for i, item in enumerate(value)}
    arrays = columns(value) if is_table(value) else value
    if isinstance(arrays, dict):
        if not arrays:
            raise TensorError(f"{name}: the example holds no arrays")
        return tuple(_spec(str(key), as_array(item)) for key, item in arrays.items())
    return (_spec(name, as_array(arrays)),)


def is_table(value: Any) -> bool:
    """Whether the value is a DataFrame (pandas, polars or alike)."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy") and hasattr(value, "__getitem__")


def columns(table: Any) -> dict[str, Array]:
    """The columns of a DataFrame as arrays, by name."""
    return {str(name): as_array(table[name].to_numpy()) for name in table.columns}


def as_array(value: Any) -> Array:
    """Anything array-like as an array."""
    if hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):
        value = value.to_numpy()
    return np.asarray(value)


def merge(*signatures: Signature) -> Signature:
    """One signature with the methods of all, in order."""
    return Signature(tuple(method for signature in signatures for method in signature.methods))


def _spec(name: str, array: Array) -> TensorSpec:
    if array.ndim == 0:
        raise TensorError(
            f"{name}: the example is a single value; give rows, the first dimension counts them"
        )
    try:
        return TensorSpec(name, datatype_of(array), (-1, *(int(size) for size in array.shape[1:])))
    except TensorError as error:
        raise TensorError(f"{name}: {error}") from None


def example_inputs(example: Any) -> Mapping[str, Array]:
    """The arrays of an example by tensor name, as `infer_signature` names them."""
    if is_table(example):
        return columns(example)
    if isinstance(example, dict):
        return {str(name): as_array(item) for name, item in example.items()}
    return {"input": as_array(example)}
