"""Predictions: arrays in, arrays out, over the Open Inference Protocol. Imported when numpy is needed first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard import signature, tensors
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.errors import InvalidTensor
from modelyard.types import EndpointInfo, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, Any]


def build_request(
    name: str, inputs: Any, info: EndpointInfo, *, version: int | None, method: str, outputs: Sequence[str]
) -> oip.ModelInferRequest:
    """The request for a prediction, with the inputs named and typed as the deployment takes them.

    Raises:
        InvalidTensor: the inputs do not fit; nothing was sent.
    """
    request = oip.ModelInferRequest(model_name=name, model_version=str(version or ""))
    if method:
        request.parameters["method"].string_param = method
    for wanted in outputs:
        request.outputs.add(name=wanted)
    try:
        arrays = match_inputs(inputs, info)
        types = {spec.name: spec.datatype for spec in info.inputs}
        for tensor, array in arrays.items():
            datatype = types.get(tensor) or tensors.datatype_of(array)
            fitted = tensors.cast(array, datatype, tensor)
            request.inputs.add(name=tensor, datatype=datatype, shape=fitted.shape)
            request.raw_input_contents.append(tensors.to_raw(fitted, datatype))
    except tensors.TensorError as error:
        raise InvalidTensor(str(error)) from error
    return request


def match_inputs(inputs: Any, info: EndpointInfo) -> Mapping[str, Array]:
    """The inputs by tensor name: named ones as they are, a table or a bare array spread over what is wanted."""
    names = [spec.name for spec in info.inputs]
    if isinstance(inputs, dict):
        arrays = {str(name): signature.as_array(item) for name, item in inputs.items()}
        _same_names(arrays, names)
        return arrays
    flat = bool(names) and all(len(spec.shape) == 1 for spec in info.inputs)
    if signature.is_table(inputs) and (flat or len(names) > 1):
        arrays = signature.columns(inputs)
        _same_names(arrays, names)
        return {name: arrays[name] for name in names}
    array = signature.as_array(inputs)
    if array.ndim == 0:
        raise tensors.TensorError("the input is a single value; give rows, the first dimension counts them")
    if len(names) <= 1:
        return {names[0] if names else "input": array}
    if flat and array.ndim == 2 and array.shape[1] == len(names):
        return {name: array[:, i] for i, name in enumerate(names)}
    raise tensors.TensorError(
        f"the model takes {len(names)} tensors, give a dict of arrays: {', '.join(names)}; "
        f"one array of shape {list(array.shape)} cannot be spread over them"
    )


def read_answer(name: str, answer: oip.ModelInferResponse, *, decode_text: bool) -> Prediction:
    """The prediction in an answer.

    Raises:
        InvalidTensor: the answer does not hold the bytes it announces.
    """
    outputs: dict[str, Array] = {}
    if len(answer.raw_output_contents) != len(answer.outputs):
        raise InvalidTensor(
            f"the answer announces {len(answer.outputs)} outputs and holds {len(answer.raw_output_contents)}"
        )
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        try:
            array = tensors.from_raw(output.datatype, output.shape, raw)
        except tensors.TensorError as error:
            raise InvalidTensor(
                f"output {output.name!r}: {error}", metadata={"tensor": output.name}
            ) from error
        outputs[output.name] = tensors.texts(array) if decode_text and output.datatype == "BYTES" else array
    return Prediction(
        outputs=outputs,
        deployment=answer.model_name or name,
        model=answer.parameters["modelyard_model"].string_param,
        model_version=int(answer.model_version) if answer.model_version.isdecimal() else 0,
        artifact_digest=answer.parameters["modelyard_artifact"].string_param,
    )


def _same_names(arrays: Mapping[str, Array], wanted: Sequence[str]) -> None:
    unknown = [name for name in arrays if name not in wanted]
    missing = [name for name in wanted if name not in arrays]
    if wanted and (unknown or missing):
        problems = [f"{', '.join(missing)} missing"] if missing else []
        problems += [f"{', '.join(unknown)} unknown"] if unknown else []
        raise tensors.TensorError(f"inputs: {' and '.join(problems)}; the model takes {', '.join(wanted)}")
