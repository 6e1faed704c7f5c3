"""Whatever a caller sends is a prediction or a refusal, never a fault of the replica."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard_inference.replica import invocations, messages, rest
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Contract, Prediction
from modelyard_inference.runtimes.datatypes import DATATYPES
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from modelyard_kit.errors import DomainError

NAMES = ["x", "t", "z"]
CONTRACT = Contract(
    ReplicaConfig(
        deployment="d",
        model="c.s.m",
        version=1,
        artifact_digest="sha256:0",
        model_directory=Path("/m"),
        runtime="sklearn",
        listen="unix:/s",
        signature=Signature(
            (
                MethodSignature(
                    "both",
                    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))),
                    (TensorSpec("y", "FP32", (-1,)),),
                ),
                *(
                    MethodSignature(name, (TensorSpec("x", name, (-1, -1)),), (TensorSpec("y", name, (2,)),))
                    for name in DATATYPES
                ),
            )
        ),
    )
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "name"]), inner, max_size=2)
    ),
    max_leaves=8,
)
dimensions = st.lists(st.integers(-3, 4) | st.integers(-(2**63), 2**63 - 1), max_size=3)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=4),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=4),
)
tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(NAMES),
    datatype=st.sampled_from([*DATATYPES, "", "FLOAT"]),
    shape=dimensions,
    contents=st.none() | contents,
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["d", "d", "d", "other"]),
    model_version=st.sampled_from(["", "1", "2", "x", "-1", "²"]),
    parameters=st.dictionaries(
        st.sampled_from(["method", "timeout", "sequence_id", "other"]),
        st.builds(pb.InferParameter, string_param=st.sampled_from([*DATATYPES, "both", ""]))
        | st.builds(pb.InferParameter, int64_param=st.integers(-1, 9))
        | st.just(pb.InferParameter()),
        max_size=2,
    ),
    inputs=st.lists(tensors, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=40), max_size=3),
)


def check(prediction: Prediction) -> None:
    specs = {spec.name: spec for spec in CONTRACT.methods[prediction.method].signature.inputs}
    assert set(prediction.inputs) == set(specs)
    assert prediction.rows >= 1
    for name, array in prediction.inputs.items():
        assert specs[name].fits(array.shape)
        assert array.dtype == DATATYPES[specs[name].datatype].dtype


@given(requests)
def test_messages(request: pb.ModelInferRequest) -> None:
    try:
        check(messages.parse(request.SerializeToString(), CONTRACT))
    except DomainError as error:
        assert error.code in ("INVALID_ARGUMENT", "NOT_FOUND")


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    for parse in (
        lambda: messages.parse(body, CONTRACT),
        lambda: rest.parse("d", "", body, CONTRACT),
        lambda: invocations.parse("d", "", body, CONTRACT),
    ):
        try:
            check(parse())
        except DomainError as error:
            assert error.code in ("INVALID_ARGUMENT", "NOT_FOUND")


# How fast requests are made up says how loaded the machine is, nothing about parsing.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.just("i") | json_values,
            "parameters": st.dictionaries(st.sampled_from(["method", "timeout", "headers"]), json_values)
            | json_values,
            "inputs": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "name": st.sampled_from(NAMES) | json_values,
                        "datatype": st.sampled_from([*DATATYPES]) | json_values,
                        "shape": dimensions | json_values,
                        "data": st.lists(st.integers(0, 5), max_size=6) | json_values,
                        "parameters": json_values,
                    },
                ),
                max_size=2,
            )
            | json_values,
            "outputs": json_values,
        },
    )
)
def test_rest(body: Any) -> None:
    try:
        check(rest.parse("d", "", json.dumps(body).encode("utf-8", "surrogatepass"), CONTRACT))
    except DomainError as error:
        assert error.code == "INVALID_ARGUMENT"


@given(
    json_values
    | st.dictionaries(
        st.sampled_from(
            ["dataframe_split", "dataframe_records", "instances", "inputs", "data", "params", "x"]
        ),
        json_values | st.fixed_dictionaries({"columns": json_values, "data": json_values}),
        max_size=2,
    )
)
def test_invocations(body: Any) -> None:
    try:
        check(invocations.parse("d", "", json.dumps(body).encode("utf-8", "surrogatepass"), CONTRACT))
    except DomainError as error:
        assert error.code == "INVALID_ARGUMENT"


@given(
    st.lists(st.floats(width=32), min_size=2, max_size=2),
    st.lists(st.text(max_size=5), min_size=1, max_size=1),
)
def test_both_forms_mean_the_same(numbers: list[float], words: list[str]) -> None:
    odd = {math.inf: "Infinity", -math.inf: "-Infinity"}
    written = ["NaN" if math.isnan(number) else odd.get(number, number) for number in numbers]
    words = [word.encode("utf-8", "replace").decode() for word in words]
    body = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": written},
            {"name": "t", "datatype": "BYTES", "shape": [1], "data": words},
        ]
    }
    request = pb.ModelInferRequest(model_name="d")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend(numbers)
    request.inputs.add(name="t", datatype="BYTES", shape=[1]).contents.bytes_contents.extend(
        word.encode() for word in words
    )
    one = rest.parse("d", "1", json.dumps(body).encode(), CONTRACT)
    two = messages.parse(request.SerializeToString(), CONTRACT)
    assert one.inputs["x"].tobytes() == two.inputs["x"].tobytes() or any(map(math.isnan, numbers))
    assert one.inputs["t"].tolist() == two.inputs["t"].tolist()
    assert (one.key, one.rows, one.wanted) == (two.key, two.rows, two.wanted)
