"""ONNX models, run by onnxruntime on the CPU: `model.onnx` or the only `.onnx` at the artifact's root (external data beside it).

The inputs and outputs of every method are inputs and outputs of the graph, by name; a method that names fewer outputs
computes only those. With the layout COLUMNS each column goes to the input of its name, as [n, 1] where the graph wants a
matrix. BYTES reach the graph as text. BF16 is not supported, nor are outputs that are not tensors (convert scikit-learn
classifiers with `options={"zipmap": False}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnxruntime

from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, texts
from modelyard_inference.runtimes.files import find_file
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec

FILE: Final = "model.onnx"
_TYPES: Final[Mapping[str, str]] = {
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
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxRuntime:
    """A loaded graph."""

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session = session
        self._outputs = {method.name: [item.name for item in method.outputs] for method in signature.methods}
        self._matrices = {
            (method.name, item.name)
            for method in signature.methods
            if method.input_layout is InputLayout.COLUMNS
            for item in session.get_inputs()
            if len(item.shape) == 2
        }

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        feeds = {name: self._feed(method, name, array) for name, array in inputs.items()}
        names = self._outputs[method]
        return dict(zip(names, self._session.run(names, feeds), strict=True))

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._session = None

    def _feed(self, method: str, name: str, array: Array) -> Array:
        if array.dtype.kind == "O":
            try:
                array = texts(array)
            except UnicodeDecodeError as error:
                raise RejectedInput(name, "holds bytes that are not UTF-8 text") from error
        return array.reshape(-1, 1) if (method, name) in self._matrices else array


def load(directory: Path, signature: Signature, *, threads: int = 1) -> OnnxRuntime:
    """Load the graph; see `Load`."""
    path = find_file(directory, FILE, suffix=".onnx", runtime="ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises one class per status, without a common base
        text = (str(error).splitlines() or [type(error).__name__])[0][:500]
        raise LoadError(
            f"{path.name} cannot be loaded by onnxruntime {onnxruntime.__version__}: {text}"
        ) from error
    graph_inputs = {item.name: item.type for item in session.get_inputs()}
    graph_outputs = {item.name: item.type for item in session.get_outputs()}
    for method in signature.methods:
        _check(method, "input", method.inputs, graph_inputs)
        _check(method, "output", method.outputs, graph_outputs)
        missing = sorted(set(graph_inputs) - {item.name for item in method.inputs})
        if missing:
            raise LoadError(f"method {method.name!r} lacks the inputs {', '.join(missing)} of the graph")
    return OnnxRuntime(session, signature)


def _check(
    method: MethodSignature, kind: str, specs: tuple[TensorSpec, ...], graph: Mapping[str, str]
) -> None:
    for spec in specs:
        if spec.name not in graph:
            raise LoadError(
                f"method {method.name!r} names the {kind} {spec.name!r}; the graph has {', '.join(sorted(graph))}"
            )
        graph_type = graph[spec.name]
        if graph_type not in _TYPES:
            raise LoadError(f"{kind} {spec.name!r} of the graph is a {graph_type}, which cannot be served")
        if _TYPES[graph_type] != spec.datatype:
            raise LoadError(
                f"{kind} {spec.name!r} of the graph is {_TYPES[graph_type]}, the signature says {spec.datatype}"
            )
