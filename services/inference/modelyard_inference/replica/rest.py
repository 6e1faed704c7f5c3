"""The protocol's REST form: JSON of a request -> `Prediction`, outputs -> JSON.

Numbers are numbers; `"NaN"`, `"Infinity"` and `"-Infinity"` are written as text, because JSON has none, and read as such.
BYTES are text. Data may be nested as the shape says, or flat; answers are flat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelyard_inference.replica.contract import (
    Contract,
    Method,
    ParameterValue,
    Prediction,
    check_tensor_parameters,
    read_parameters,
)
from modelyard_inference.replica.errors import InvalidTensor
from modelyard_inference.runtimes.datatypes import DATATYPES, Array, object_array
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.errors import InvalidField

_ODD_NUMBERS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_MISSING: Final = object()


def parse(name: str, version: str, body: bytes, contract: Contract) -> Prediction:
    """Read the body of an inference request.

    Raises:
        DomainError: a subclass that says what does not fit.
    """
    contract.check_model(name, version)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidField("body", f"is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidField("body", "must be a JSON object with 'inputs'")
    parameters = read_parameters(_parameters(request, "parameters"))
    method = contract.method(parameters.method)
    inputs: dict[str, Array] = {}
    for index, item in enumerate(_objects(request, "inputs")):
        tensor, array = _input(item, f"inputs[{index}]", method)
        if tensor in inputs:
            raise InvalidTensor(tensor, f"input '{tensor}' already exists in request")
        inputs[tensor] = array
    names = []
    for index, item in enumerate(_objects(request, "outputs")):
        field = f"outputs[{index}]"
        names.append(_text(item, "name", field))
        _check_parameters("output", names[-1], _parameters(item, f"{field}.parameters"))
    request_id = request.get("id", "")
    if not isinstance(request_id, str) or not _is_unicode(request_id):
        raise InvalidField("id", "must be text")
    return method.predict(
        inputs, wanted=method.select(names), request_id=request_id, timeout=parameters.timeout
    )


def render(prediction: Prediction, outputs: Mapping[str, Array], contract: Contract) -> bytes:
    """Return the JSON of the response."""
    response: dict[str, Any] = {"model_name": contract.name, "model_version": contract.version}
    if prediction.id:
        response["id"] = prediction.id
    response["parameters"] = {
        "modelyard_model": contract.config.model,
        "modelyard_artifact": contract.config.artifact_digest,
    }
    response["outputs"] = [
        {
            "name": spec.name,
            "shape": list(outputs[spec.name].shape),
            "datatype": spec.datatype,
            "data": _plain(spec.name, spec.datatype, outputs[spec.name]),
        }
        for spec in prediction.wanted
    ]
    return dump(response)


def dump(value: Any) -> bytes:
    """Return a value as the bytes of its JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _input(item: Mapping[str, Any], field: str, method: Method) -> tuple[str, Array]:
    name = _text(item, "name", field)
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise InvalidField(f"{field}.shape", "must be a list of whole numbers")
    spec = method.check_input(name, _text(item, "datatype", field), shape)
    _check_parameters("input", name, _parameters(item, f"{field}.parameters"))
    data = item.get("data", _MISSING)
    if data is _MISSING:
        raise InvalidTensor(name, f"unable to find data for input tensor '{name}' in request.")
    flat = list(flatten(data, name))
    count = 1
    for size in shape:
        count *= size
    if len(flat) != count:
        raise InvalidTensor(
            name, f"input '{name}': the shape {shape} takes {count} values, but 'data' has {len(flat)}"
        )
    return name, to_array(name, spec.datatype, flat).reshape(shape)


def flatten(data: Any, name: str) -> Iterator[Any]:
    """Yield the values of nested lists without recursion: depth is the caller's choice.

    Raises:
        InvalidTensor: it is no list.
    """
    if not isinstance(data, list):
        raise InvalidTensor(name, f"input '{name}': 'data' must be a list")
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()


def to_array(name: str, datatype: str, flat: list[Any]) -> Array:
    """Return plain values as an array of one dimension.

    Raises:
        InvalidTensor: they are none of that type.
    """
    kinds = set(map(type, flat))
    if datatype == "BYTES":
        _only(name, datatype, kinds, {str}, "text")
        try:
            return object_array([value.encode("utf-8") for value in flat], (len(flat),))
        except UnicodeEncodeError as error:
            raise InvalidTensor(name, f"input '{name}': 'data' holds text that is not Unicode") from error
    dtype = DATATYPES[datatype].dtype
    if datatype == "BOOL":
        _only(name, datatype, kinds, {bool}, "true and false")
    elif dtype.kind == "f":
        if str in kinds:
            flat = [_ODD_NUMBERS.get(value, value) if type(value) is str else value for value in flat]
            kinds = set(map(type, flat))
        _only(name, datatype, kinds, {int, float}, "numbers")
    else:
        _only(name, datatype, kinds, {int}, "whole numbers")
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype=dtype)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidTensor(name, f"input '{name}' holds a number that {datatype} cannot: {error}") from error


def nested(spec: TensorSpec, array: Array) -> Any:
    """Return the values of an output in lists, nested as its shape says."""
    if not array.size:
        return array.tolist()
    values: list[Any] = _plain(spec.name, spec.datatype, array)
    for size in reversed(array.shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values if array.shape else values[0]


def _only(name: str, datatype: str, kinds: set[type], allowed: set[type], words: str) -> None:
    if not kinds <= allowed:
        raise InvalidTensor(name, f"input '{name}': 'data' of {datatype} must be {words}")


def _plain(name: str, datatype: str, array: Array) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        try:
            return [value.decode("utf-8") for value in values]
        except UnicodeDecodeError as error:
            raise InvalidTensor(
                name, f"output '{name}' holds bytes that are not UTF-8 text: ask for it by gRPC"
            ) from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [value if np.isfinite(value) else _odd_text(value) for value in values]
    return values


def _is_unicode(text: str) -> bool:
    """Tell whether the text is free of halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _odd_text(value: float) -> str:
    return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")


def _parameters(holder: Mapping[str, Any], field: str) -> Mapping[str, ParameterValue]:
    value = holder.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidField(field, "must be an object")
    return value


def _check_parameters(kind: str, tensor: str, parameters: Mapping[str, ParameterValue]) -> None:
    # Clients send `"binary_data": false` to say that JSON is fine.
    check_tensor_parameters(
        kind,
        tensor,
        [name for name, value in parameters.items() if not (name == "binary_data" and value is False)],
    )


def _objects(holder: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    items = holder.get(key)
    if items is None:
        return ()
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidField(key, "must be a list of objects")
    return items


def _text(holder: Mapping[str, Any], key: str, field: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidField(f"{field}.{key}", "must be text that is not empty")
    return value
