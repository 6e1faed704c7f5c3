"""The example that a model is logged with, as requests that replicas run before they answer anybody: `warmup.jsonl`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from modelyard.types import MethodSignature, Signature, TensorSpec

    Array = np.ndarray[Any, Any]

FILE_NAME: Final = "warmup.jsonl"
_ROWS: Final = 8
_MAX_BYTES: Final = 2**20
"""Of one request; a replica takes 16 MiB in all."""
_ODD: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def record(path: Path, folder: Path, signature: Signature | None, example: Any) -> Path:
    """Write the first rows of an example beside a model that was saved into `folder`.

    Methods that take something else than the example has are left out, and so is all of it for a model that is logged as it
    is, from where the caller keeps it.

    Args:
        path: file or folder of the model.
        folder: what it was saved into.
        signature: what it takes.
        example: as its user gave it.

    Returns:
        What to upload.
    """
    if signature is None or path not in (folder, *folder.iterdir()):
        return path
    requests = [request for method in signature.methods if (request := _request(method, example))]
    if not requests:
        return path
    (folder / FILE_NAME).write_text("".join(f"{request}\n" for request in requests), encoding="utf-8")
    return folder


def _request(method: MethodSignature, example: Any) -> str:
    """Return the request of a method, in one line; empty if the example is none of it, or too large."""
    rows = _ROWS
    while rows:
        try:
            inputs = [
                _tensor(spec, array[:rows] if spec.shape[:1] == (-1,) else array)
                for spec, array in _paired(method, example)
            ]
        except ValueError:  # what a replica could not be asked either
            return ""
        text = json.dumps({"inputs": inputs, "parameters": {"method": method.name}}, separators=(",", ":"))
        if inputs and len(text) <= _MAX_BYTES:
            return text
        rows //= 2
    return ""


def _paired(method: MethodSignature, example: Any) -> list[tuple[TensorSpec, Array]]:
    """Return each input of a method with its array; nothing if the example has others."""
    arrays = _arrays(example)
    if len(arrays) == len(method.inputs) == 1:
        return [(method.inputs[0], next(iter(arrays.values())))]
    if arrays.keys() != {spec.name for spec in method.inputs}:
        return []
    return [(spec, arrays[spec.name]) for spec in method.inputs]


def _arrays(example: Any) -> Mapping[str, Array]:
    from modelyard import signature

    return signature.example_inputs([example] if isinstance(example, str) else example)


def _tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    from modelyard import tensors

    fits = len(array.shape) == len(spec.shape) and all(
        wanted in (-1, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        raise tensors.TensorError(f"{spec.name}: the example has the shape {list(array.shape)}")
    values = tensors.cast(array, spec.datatype, spec.name).ravel().tolist()
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": list(array.shape),
        "data": [_plain(spec, value) for value in values],
    }


def _plain(spec: TensorSpec, value: Any) -> Any:
    """Return a value as JSON has it; what JSON has no number for is a text."""
    if spec.datatype == "BYTES":
        return value.decode("utf-8") if isinstance(value, bytes) else _text(spec, value)
    if isinstance(value, float) and not math.isfinite(value):
        return _ODD.get(value, "NaN")
    return value


def _text(spec: TensorSpec, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{spec.name}: a {type(value).__name__} is no text")  # noqa: TRY004  as all that does not fit
    return value
