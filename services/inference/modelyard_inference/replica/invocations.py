"""Predictions as MLflow's scoring server (`/invocations`) and OCI's model deployments (`/predict`) take them: rows or columns.

In JSON, or as CSV if the content type says so. MLflow: one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, and `params`, of which `method` names the method.
OCI, and everything else: the rows or columns themselves, or these under `data`. The answer is `{"predictions": ...}` for the first,
`{"prediction": ...}` for the second: the only output, nested as its shape says, or an object of outputs by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelyard_inference.replica import csv_form, rest
from modelyard_inference.replica.contract import Contract, Method, Prediction, read_parameters
from modelyard_inference.replica.errors import InvalidTensor
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.errors import InvalidField

INVOCATIONS: Final = "invocations"
PREDICT: Final = "predict"
ANSWERS: Final[Mapping[str, str]] = {INVOCATIONS: "predictions", PREDICT: "prediction"}
"""Last part of the path -> what the answer is called."""
_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

Columns = Mapping[str, Sequence[Any]]
Parse = Callable[[str, str, bytes, Contract], Prediction]
"""Reads a body for a deployment and version."""


def parser(content_type: str) -> Parse:
    """Return what reads a body of this content type: CSV if that is said, else JSON.

    Raises:
        InvalidField: the charset of the CSV is not UTF-8.
    """
    return parse_csv if csv_form.is_csv(content_type) else parse


def parse_csv(name: str, version: str, body: bytes, contract: Contract) -> Prediction:
    """Read the body of a request in CSV, which has no room for parameters: the first method answers.

    Raises:
        DomainError: a subclass that says what does not fit.
    """
    contract.check_model(name, version)
    method = contract.method("")
    inputs = {
        spec.name: _tensor(spec, csv_form.valued(spec, given), method)
        for spec, given in _inputs("body", csv_form.columns(body), method)
    }
    return method.predict(inputs, wanted=method.select([]), request_id="", timeout=None)


def parse(name: str, version: str, body: bytes, contract: Contract) -> Prediction:
    """Read the body of a request in JSON.

    Raises:
        DomainError: a subclass that says what does not fit.
    """
    contract.check_model(name, version)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidField("body", f"is not JSON: {error}") from error
    field, value, parameters = _taken_apart(request)
    asked = read_parameters(parameters)
    method = contract.method(asked.method)
    inputs = {spec.name: _tensor(spec, given, method) for spec, given in _inputs(field, value, method)}
    return method.predict(inputs, wanted=method.select([]), request_id="", timeout=asked.timeout)


def render(prediction: Prediction, outputs: Mapping[str, Array], form: str) -> bytes:
    """Return the JSON of the answer to `form`."""
    values = {spec.name: rest.nested(spec, outputs[spec.name]) for spec in prediction.wanted}
    answer = next(iter(values.values())) if len(values) == 1 else values
    return rest.dump({ANSWERS[form]: answer})


def _taken_apart(request: Any) -> tuple[str, Any, Mapping[str, Any]]:
    """Return the field that holds rows or columns, what it holds, and the parameters."""
    if not isinstance(request, dict):
        return "body", request, {}
    given = [name for name in _FORMS if name in request]
    if len(given) > 1:
        raise InvalidField(given[1], f"comes beside {given[0]!r}: send one of {', '.join(_FORMS)}")
    if not given:
        return ("data", request["data"], {}) if "data" in request else ("body", request, {})
    parameters = request.get("params") or {}
    if not isinstance(parameters, dict):
        raise InvalidField("params", "must be an object")
    value = request[given[0]]
    return given[0], _split(value) if given[0] == "dataframe_split" else value, parameters


def _split(value: Any) -> Columns:
    if not (isinstance(value, dict) and isinstance(value.get("data"), list)):
        raise InvalidField("dataframe_split", "must be an object with 'columns' and 'data'")
    columns, rows = value.get("columns"), value["data"]
    if not isinstance(columns, list) or not all(isinstance(column, str | int) for column in columns):
        raise InvalidField("dataframe_split.columns", "must be a list of names")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise InvalidField(f"dataframe_split.data[{index}]", f"must be a list of {len(columns)} values")
    return {str(column): [row[index] for row in rows] for index, column in enumerate(columns)}


def _inputs(field: str, value: Any, method: Method) -> list[tuple[TensorSpec, Any]]:
    """Return each input of the method with its nested values."""
    specs = list(method.inputs.values())
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        value = _columns(field, value)
    if isinstance(value, dict):
        return _by_name(value, specs, method)
    if not isinstance(value, list):
        raise InvalidField(field, "must be a list of rows, or an object of columns")
    if len(specs) == 1:
        return [(specs[0], value)]
    for index, row in enumerate(value):
        if not isinstance(row, list) or len(row) != len(specs):
            names = ", ".join(method.inputs)
            raise InvalidField(f"{field}[{index}]", f"must be a list of {len(specs)} values: {names}")
    return [(spec, [row[index] for row in value]) for index, spec in enumerate(specs)]


def _columns(field: str, rows: Sequence[Mapping[str, Any]]) -> Columns:
    names = rows[0].keys()
    for index, row in enumerate(rows):
        if row.keys() != names:
            raise InvalidField(f"{field}[{index}]", f"must have the columns {', '.join(names)}")
    return {name: [row[name] for row in rows] for name in names}


def _by_name(
    columns: Mapping[str, Any], specs: Sequence[TensorSpec], method: Method
) -> list[tuple[TensorSpec, Any]]:
    (first, *others) = specs
    if not others and first.name not in columns and len(first.shape) > 1:
        # A table for a model that takes a matrix: its columns in the order in which they came.
        lists = list(columns.values())
        if all(isinstance(column, list) and len(column) == len(lists[0]) for column in lists):
            return [(first, list(map(list, zip(*lists, strict=True))))]
    return [(method.input(name), given) for name, given in columns.items()]


def _tensor(spec: TensorSpec, value: Any, method: Method) -> Array:
    flat = list(rest.flatten(value, spec.name))
    shape = _shape(spec, value, len(flat))
    method.check_input(spec.name, spec.datatype, shape)
    if math.prod(shape) != len(flat):
        told = f"input '{spec.name}': rows differ in length"
        raise InvalidTensor(spec.name, told)
    return rest.to_array(spec.name, spec.datatype, flat).reshape(shape)


def _shape(spec: TensorSpec, value: Any, count: int) -> list[int]:
    """Return the shape that values are nested in, or, for a column of plain values, the one that the model wants of as many."""
    found: list[int] = []
    while isinstance(value, list):
        found.append(len(value))
        value = value[0] if value else None
    fixed = math.prod(size for size in spec.shape if size != -1)
    if len(found) == len(spec.shape) or spec.shape.count(-1) != 1 or count % fixed:
        return found
    return [count // fixed if size == -1 else size for size in spec.shape]
