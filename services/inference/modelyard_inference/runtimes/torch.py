"""PyTorch programs that `torch.export` made: `model.pt2` or the only `.pt2` at the artifact's root.

They run on a GPU where there is one, wherever they were exported, or else on the CPU.

The one method is `predict`, the module's forward: the inputs in the order of the signature are its arguments; its outputs are
named by the signature in order, or by the keys of a dict. PyTorch itself says not to read such files from people one does not
trust: reading evaluates expressions and may unpickle. A model that is to be served without trusting its author is ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.devices import device
from modelyard_inference.runtimes.estimators import first_line
from modelyard_inference.runtimes.files import find_file
from modelyard_inference.runtimes.signature import MethodSignature, Signature

FILE: Final = "model.pt2"
METHOD: Final = "predict"
_DTYPES: Final[Mapping[torch.dtype, str]] = {
    torch.bool: "BOOL",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.uint8: "UINT8",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


class TorchRuntime:
    """A loaded program."""

    def __init__(self, module: Any, method: MethodSignature, where: torch.device) -> None:
        self._module = module
        self._method = method
        self._device = where

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        del method  # there is only one
        arguments = [
            _tensor(inputs[spec.name], spec.datatype).to(self._device) for spec in self._method.inputs
        ]
        with torch.inference_mode():
            result = self._module(*arguments)
        if isinstance(result, Mapping):
            return {name: _array(value) for name, value in result.items()}
        parts = list(result) if isinstance(result, list | tuple) else [result]
        if len(parts) != len(self._method.outputs):
            raise ValueError(
                f"the program gives {len(parts)} outputs, the signature names {len(self._method.outputs)}"
            )
        return {spec.name: _array(part) for spec, part in zip(self._method.outputs, parts, strict=True)}

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._module = None


def load(directory: Path, signature: Signature, *, threads: int = 1) -> TorchRuntime:
    """Load the program; see `Load`."""
    path = find_file(directory, FILE, suffix=".pt2", runtime="PyTorch")
    names = [method.name for method in signature.methods]
    if names != [METHOD]:
        raise LoadError(
            f"the signature names {', '.join(names)}; a program of PyTorch has the one method {METHOD!r}"
        )
    torch.set_num_threads(threads)
    where = device()
    try:
        program = move_to_device_pass(torch.export.load(path), where)
        module = program.module()
    except Exception as error:  # a broken file raises many kinds
        raise LoadError(
            f"{path.name} cannot be loaded by PyTorch {torch.__version__}: {first_line(error)}"
        ) from error
    _check(program, signature.methods[0])
    return TorchRuntime(module, signature.methods[0], where)


def _check(program: Any, method: MethodSignature) -> None:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    wanted = [values[name] for name in program.graph_signature.user_inputs if name in values]
    if len(wanted) != len(method.inputs):
        raise LoadError(f"the signature names {len(method.inputs)} inputs, the program takes {len(wanted)}")
    for spec, value in zip(method.inputs, wanted, strict=True):
        datatype = _DTYPES.get(getattr(value, "dtype", None))
        if datatype != spec.datatype:
            raise LoadError(
                f"input {spec.name!r} of the program is {datatype}, the signature says {spec.datatype}"
            )
        if len(value.shape) != len(spec.shape) or any(
            isinstance(have, int) and have != want for have, want in zip(value.shape, spec.shape, strict=True)
        ):
            raise LoadError(
                f"input {spec.name!r} of the program has the shape {[str(size) for size in value.shape]}, the signature "
                f"says {list(spec.shape)}: export with dynamic_shapes what may vary"
            )


def _tensor(array: Array, datatype: str) -> torch.Tensor:
    # Inputs are views of the request and read-only, which torch's tensors cannot be.
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(torch.bfloat16) if datatype == "BF16" else tensor


def _array(tensor: torch.Tensor) -> Array:
    array: Array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()
    return array
