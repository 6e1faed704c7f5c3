"""Open Inference Protocol messages: request -> `Prediction`, outputs -> response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard_inference.replica.contract import (
    Contract,
    Method,
    Parameters,
    ParameterValue,
    Prediction,
    check_tensor_parameters,
    read_parameters,
)
from modelyard_inference.replica.errors import InvalidTensor
from modelyard_inference.runtimes.datatypes import (
    DATATYPES,
    Array,
    BytesError,
    from_raw,
    object_array,
    to_raw,
)
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.errors import InvalidField

NO_PARAMETERS: Final = Parameters()
_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parse(body: bytes, contract: Contract) -> Prediction:
    """Read the body of a ModelInfer.

    Raises:
        DomainError: a subclass that says what does not fit.
    """
    try:
        request = pb.ModelInferRequest.FromString(body)
    except DecodeError as error:
        raise InvalidField("body", "is not a ModelInferRequest") from error
    contract.check_model(request.model_name, request.model_version)
    parameters = NO_PARAMETERS
    if request.parameters:
        parameters = read_parameters({name: _value(item) for name, item in request.parameters.items()})
    method = contract.method(parameters.method)
    inputs = _raw_inputs(request, method) if request.raw_input_contents else _typed_inputs(request, method)
    names = []
    for output in request.outputs:
        if output.parameters:
            check_tensor_parameters("output", output.name, list(output.parameters))
        names.append(output.name)
    return method.predict(
        inputs, wanted=method.select(names), request_id=request.id, timeout=parameters.timeout
    )


class Renderer:
    """Builds responses. The parts that never change are encoded once and put in front."""

    def __init__(self, contract: Contract) -> None:
        head = pb.ModelInferResponse(model_name=contract.name, model_version=contract.version)
        head.parameters["modelyard_model"].string_param = contract.config.model
        head.parameters["modelyard_artifact"].string_param = contract.config.artifact_digest
        self._head = head.SerializeToString()

    def render(self, prediction: Prediction, outputs: Mapping[str, Array]) -> bytes:
        """Return the encoded response; concatenated protobuf messages are one message."""
        rest = pb.ModelInferResponse(id=prediction.id)
        for spec in prediction.wanted:
            array = outputs[spec.name]
            rest.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            rest.raw_output_contents.append(to_raw(spec.datatype, array))
        return self._head + rest.SerializeToString()


def _raw_inputs(request: pb.ModelInferRequest, method: Method) -> dict[str, Array]:
    raw = request.raw_input_contents
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        spec, shape = _checked(tensor, method, inputs)
        if tensor.HasField("contents"):
            raise InvalidTensor(
                name,
                "contents field must not be specified when using raw_input_contents "
                f"for '{name}' for model '{request.model_name}'",
            )
        if index >= len(raw):
            raise _no_data(name, request.model_name)
        inputs[name] = _from_raw(spec, raw[index], shape, method)
    if len(raw) > len(request.inputs):
        raise InvalidField(
            "raw_input_contents",
            f"has {len(raw)} entries for {len(request.inputs)} inputs: one per input is needed",
        )
    return inputs


def _from_raw(spec: TensorSpec, raw: bytes, shape: list[int], method: Method) -> Array:
    size = DATATYPES[spec.datatype].size
    if not size:
        try:
            return from_raw(spec.datatype, raw, shape)
        except BytesError as error:
            raise InvalidTensor(
                spec.name, f"{error.before} for inference input '{spec.name}', {error.after}"
            ) from error
    for length in shape:
        size *= length
    method.check_size(spec.name, size, len(raw))
    return from_raw(spec.datatype, raw, shape)


def _typed_inputs(request: pb.ModelInferRequest, method: Method) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for tensor in request.inputs:
        spec, shape = _checked(tensor, method, inputs)
        if not tensor.HasField("contents"):
            raise _no_data(tensor.name, request.model_name)
        inputs[tensor.name] = _from_contents(spec, tensor.contents, shape, request.model_name, method)
    return inputs


def _from_contents(
    spec: TensorSpec, contents: pb.InferTensorContents, shape: list[int], model_name: str, method: Method
) -> Array:
    field = _CONTENTS.get(spec.datatype)
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    wrong = next((name for name in used if name != field), None)
    if wrong is not None:
        raise InvalidTensor(
            spec.name,
            f"unexpected explicit tensor data for input tensor '{spec.name}' for model '{model_name}' "
            f"in '{wrong}', expected datatype '{spec.datatype}' in '{field or 'raw_input_contents'}'",
        )
    if field is None:
        raise _no_data(spec.name, model_name)
    values = getattr(contents, field)
    count = 1
    for length in shape:
        count *= length
    if spec.datatype == "BYTES":
        if len(values) != count:
            raise InvalidTensor(
                spec.name,
                f"expected {count} string elements for inference input '{spec.name}', got {len(values)}",
            )
        return object_array(list(values), shape)
    datatype = DATATYPES[spec.datatype]
    method.check_size(spec.name, count * datatype.size, len(values) * datatype.size)
    try:
        return np.array(values, dtype=datatype.dtype).reshape(shape)
    except OverflowError as error:
        raise InvalidTensor(
            spec.name, f"input '{spec.name}' holds a number that {spec.datatype} cannot: {error}"
        ) from error


def _checked(
    tensor: pb.ModelInferRequest.InferInputTensor, method: Method, seen: Mapping[str, Array]
) -> tuple[TensorSpec, list[int]]:
    shape = list(tensor.shape)
    spec = method.check_input(tensor.name, tensor.datatype, shape)
    if tensor.name in seen:
        raise InvalidTensor(tensor.name, f"input '{tensor.name}' already exists in request")
    if tensor.parameters:
        check_tensor_parameters("input", tensor.name, list(tensor.parameters))
    return spec, shape


def _no_data(tensor: str, model: str) -> InvalidTensor:
    return InvalidTensor(
        tensor, f"unable to find data for input tensor '{tensor}' for model '{model}' in request."
    )


def _value(parameter: Any) -> ParameterValue:
    choice = parameter.WhichOneof("parameter_choice")
    value: ParameterValue = getattr(parameter, choice) if choice else None
    return value
