"""PyTorch modules, saved as programs of `torch.export`: the class of the module need not be there to run them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from modelyard._metadata import package_version
from modelyard.errors import InvalidArgument, MissingExtra
from modelyard.flavors import Prepared
from modelyard.types import MethodSignature, ModelMetadata, Signature

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "model.pt2"
RUNTIME = "torch"
PACKAGES = ("torch", "numpy", "modelyard")


def prepare(model: Any, folder: Path, *, example: Any, signature: Signature | None) -> Prepared:
    """Save a module (traced with the example where it is) or a program that was exported already as `model.pt2`.

    What is saved is for the CPU, so that it can be read anywhere; replicas bring it to a GPU.

    Args:
        model: A `torch.nn.Module` or a `torch.export.ExportedProgram`.
        folder: Empty folder to save into.
        example: Rows as an array, or a dict of arrays, one for each argument of `forward` in order.
        signature: What it takes and gives, instead of what the example shows. A module needs the example all the same.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", RUNTIME) from error
    inputs = None if example is None else _inputs(example)
    name = type(model).__name__
    path = folder / FILE_NAME
    is_module = isinstance(model, torch.nn.Module)
    model = _exported(torch, model, inputs) if is_module else _on_cpu(torch, model, path)
    if signature is None:
        signature = _infer(torch, model, inputs)
    torch.export.save(model, path)
    metadata = ModelMetadata(
        framework="pytorch",
        framework_version=package_version("torch"),
        algorithm=name if name != "ExportedProgram" else "",
    )
    return Prepared(path, RUNTIME, signature, PACKAGES, metadata)


def _inputs(example: Any) -> dict[str, Any]:
    """The arrays of the example by name; a single row becomes two, since tracing takes sizes of one for constants."""
    from modelyard import signature as signatures

    named = example if isinstance(example, dict) else {"input": example}
    arrays = {str(name): signatures.as_array(value) for name, value in named.items()}
    return {name: array.repeat(2, axis=0) if len(array) == 1 else array for name, array in arrays.items()}


def _on_cpu(torch: Any, program: Any, path: Path) -> Any:
    """Return a program for the CPU. What is moved is a copy, because moving changes a program and this one is the caller's."""
    held = (*program.state_dict.values(), *program.constants.values())
    if all(each.device.type == "cpu" for each in held if isinstance(each, torch.Tensor)):
        return program
    torch.export.save(program, path)
    return _moved_to_cpu(torch.export.load(path))


def _moved_to_cpu(program: Any) -> Any:
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cpu")


def _exported(torch: Any, module: Any, inputs: dict[str, Any] | None) -> Any:
    if inputs is None:
        raise InvalidArgument("example: give some rows as the module takes them; it is traced with them")
    place = next((held.device for held in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    tensors = tuple(torch.from_numpy(array.copy()).to(place) for array in inputs.values())
    rows_vary = tuple({0: torch.export.Dim.AUTO} for _ in tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about PyTorch's own insides
            program = torch.export.export(module.eval(), tensors, dynamic_shapes=rows_vary)
        return _moved_to_cpu(program)
    except Exception as error:
        raise InvalidArgument(
            f"model: {type(module).__name__} cannot be exported by torch.export with this example: {error}"
        ) from error


def _infer(torch: Any, program: Any, inputs: dict[str, Any] | None) -> Signature:
    from modelyard import signature as signatures

    if inputs is None:
        raise InvalidArgument("example: give some rows as the model takes them, or signature=…")
    try:
        with torch.inference_mode():
            result = program.module()(*(torch.from_numpy(array.copy()) for array in inputs.values()))
    except Exception as error:
        raise InvalidArgument(f"example: the program fails on it: {error}") from error
    if isinstance(result, dict):
        outputs: Any = {name: value.numpy() for name, value in result.items()}
    elif isinstance(result, (list, tuple)):
        outputs = tuple(value.numpy() for value in result)
    else:
        outputs = result.numpy()
    inputs_as_given: Any = inputs if list(inputs) != ["input"] else inputs["input"]
    method: MethodSignature = signatures.infer_method(inputs_as_given, outputs, "predict")
    return Signature((method,))
