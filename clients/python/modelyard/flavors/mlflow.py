"""Folders that MLflow saved: what they take and give stands in `MLmodel`, if they were saved with a signature."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidArgument, MissingExtra
from modelyard.types import InputLayout, MethodSignature, Signature, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "MLmodel"
RUNTIME = "mlflow"
PACKAGES = ("mlflow", "mlflow-skinny", "pandas", "numpy", "modelyard")
_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
_DTYPES = {
    "bool": "BOOL",
    "str": "BYTES",
    "object": "BYTES",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def infer(folder: Path) -> Signature | None:
    """The signature in the folder's `MLmodel`; None if the model was saved without one.

    Raises:
        InvalidArgument: the file is damaged, or its signature holds what tensors cannot.
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("pyyaml", RUNTIME) from error
    try:
        content = yaml.safe_load((folder / FILE_NAME).read_text(encoding="utf-8"))
        found = content.get("signature") or {}
        inputs, outputs = (json.loads(found.get(key) or "[]") for key in ("inputs", "outputs"))
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InvalidArgument(f"model: {FILE_NAME} cannot be read: {error}") from error
    if not inputs or not outputs:
        return None
    columns = all(item.get("type") != "tensor" for item in inputs)
    return Signature(
        (
            MethodSignature(
                "predict",
                tuple(_spec(item, "input") for item in inputs),
                tuple(_spec(item, "output") for item in outputs),
                InputLayout.COLUMNS if columns else InputLayout.TENSORS,
            ),
        )
    )


def _spec(item: Any, name: str) -> TensorSpec:
    name = item.get("name") or name
    if item.get("type") == "tensor":
        spec = item["tensor-spec"]
        datatype, shape = _DTYPES.get(spec["dtype"]), tuple(spec["shape"])
    else:
        datatype, shape = _COLUMNS.get(item.get("type")), (-1,)
    if datatype is None:
        kind = item.get("tensor-spec", {}).get("dtype") or item.get("type")
        raise InvalidArgument(
            f"model: {name!r} in the signature of {FILE_NAME} is a {kind}, which tensors cannot hold; give signature=…"
        )
    return TensorSpec(name, datatype, shape)
