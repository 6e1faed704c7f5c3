"""ONNX models: the graph itself says what goes in and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard._metadata import package_version
from modelyard.errors import InvalidArgument, MissingExtra
from modelyard.flavors import Prepared
from modelyard.types import MethodSignature, ModelMetadata, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE_NAME = "model.onnx"
RUNTIME = "onnx"
PACKAGES = ("onnxruntime", "onnx", "skl2onnx", "numpy", "modelyard")

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_FRAMEWORKS = {
    "skl2onnx": ("scikit-learn", "scikit-learn"),
    "pytorch": ("pytorch", "torch"),
    "tf2onnx": ("tensorflow", "tensorflow"),
    "keras2onnx": ("keras", "keras"),
}
"""Program that writes graphs to OCI's name of the framework, and the package of that framework."""


def prepare(model: Any, folder: Path, *, signature: Signature | None) -> Prepared:
    """Save a model object or its bytes as `model.onnx`."""
    path = folder / FILE_NAME
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    metadata = _told(getattr(model, "producer_name", ""), made_here=True)
    if signature is None:
        signature, in_file = infer(path)
        metadata = metadata if metadata.framework else in_file
    return Prepared(path, RUNTIME, signature, PACKAGES, metadata)


def infer(path: Path) -> tuple[Signature, ModelMetadata]:
    """What is in a model file: the signature of its graph (one method, `predict`, runs it), and what it was made with."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidArgument(f"model: {path.name} is not an ONNX model that can be run: {error}") from error
    signature = Signature(
        (MethodSignature("predict", _specs(session.get_inputs()), _specs(session.get_outputs())),)
    )
    return signature, _told(session.get_modelmeta().producer_name, made_here=False)


def _told(producer: str, *, made_here: bool) -> ModelMetadata:
    """The framework behind the program that wrote the graph; its version is known only if that was here."""
    framework, package = _FRAMEWORKS.get(producer.lower(), ("", ""))
    version = package_version(package) if made_here and package else ""
    return ModelMetadata(framework=framework, framework_version=version)


def _specs(nodes: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(node) for node in nodes)


def _spec(node: Any) -> TensorSpec:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise InvalidArgument(
            f"model: {node.name!r} is a {node.type}, and predictions carry tensors only; convert the model so that it "
            "gives tensors (skl2onnx: options={'zipmap': False})"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape or [None])
    return TensorSpec(node.name, datatype, shape)
