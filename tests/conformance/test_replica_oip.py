"""A replica over real gRPC on a Unix socket. Every front must pass; add one to `FRONTS` to hold it to this."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from tritonclient.utils import InferenceServerException

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2 import rest_inference_pb2 as rest_pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard.api.oip.v2.rest_inference_pb2_grpc import RestInferenceServiceStub
from modelyard_inference import runtimes
from modelyard_inference.replica.app import Replica
from modelyard_inference.replica.front import MakeFront
from modelyard_inference.replica.grpc_front import GrpcFront
from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.datatypes import DATATYPES, cast, from_raw, to_raw
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from tests.conformance import odd_runtime
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_model, iris_rows, write_iris
from tests.framework.waiting import eventually

FRONTS: dict[str, MakeFront] = {"grpc.aio": GrpcFront}


@pytest.fixture(params=FRONTS.values(), ids=FRONTS.keys())
def make_front(request: pytest.FixtureRequest) -> MakeFront:
    front: MakeFront = request.param
    return front


@pytest.fixture
def sockets() -> Iterator[Path]:
    # Paths of sockets are short, those of pytest are not.
    with tempfile.TemporaryDirectory(prefix="my") as directory:
        yield Path(directory) / "s"


@pytest.fixture
async def iris(tmp_path: Path, sockets: Path, make_front: MakeFront) -> AsyncIterator[Replica]:
    replica = Replica(iris_config(write_iris(tmp_path), sockets), make_front=make_front)
    await replica.start()
    yield replica
    await replica.stop()


@pytest.fixture
async def odd(
    tmp_path: Path, sockets: Path, make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Replica]:
    monkeypatch.setitem(runtimes.RUNTIMES, odd_runtime.NAME, odd_runtime.MODULE)  # type: ignore[arg-type]
    config = iris_config(
        tmp_path,
        sockets,
        runtime=odd_runtime.NAME,
        signature=odd_runtime.SIGNATURE,
        max_request_bytes=64 * 1024,
        max_queue_rows=10,
    )
    replica = Replica(config, make_front=make_front)
    await replica.start()
    yield replica
    (tmp_path / "release").touch()
    await replica.stop()


@contextlib.asynccontextmanager
async def channel_to(replica: Replica) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(replica.config.listen, options=options) as channel:
        yield channel


def request_of(*arrays: tuple[str, str, Any], method: str = "", **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(**{"model_name": DEPLOYMENT, **fields})
    for name, datatype, array in arrays:
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(to_raw(datatype, cast(datatype, array)))
    if method:
        request.parameters["method"].string_param = method
    return request


def array_of(response: pb.ModelInferResponse, index: int = 0) -> Any:
    output = response.outputs[index]
    return from_raw(output.datatype, response.raw_output_contents[index], list(output.shape))


def reason_of(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)
    assert status is not None, "no google.rpc.Status in the trailers"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "modelyard"
    return info


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    # Trailers-only: Envoy retries nothing else.
    assert len(caught.value.initial_metadata()) == 0
    return caught.value


class TestAnswers:
    async def test_predicts(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            stub = GRPCInferenceServiceStub(channel)
            response = await stub.ModelInfer(request_of(("x", "FP32", iris_rows()), id="my-id"))
        assert array_of(response).tolist() == iris_model().predict(iris_rows()).tolist()
        assert (response.model_name, response.model_version, response.id) == (DEPLOYMENT, "3", "my-id")
        assert response.parameters["modelyard_model"].string_param == "prod.ml.iris_model"
        assert response.parameters["modelyard_artifact"].string_param == "sha256:" + "ab" * 32
        assert not response.outputs[0].HasField("contents")

    async def test_both_names_of_the_service(self, iris: Replica) -> None:
        body = request_of(("x", "FP32", iris_rows()[:1]))
        async with channel_to(iris) as channel:
            for service in ("inference.GRPCInferenceService", "modelyard.api.oip.v2.GRPCInferenceService"):
                call = channel.unary_unary(
                    f"/{service}/ModelInfer",
                    request_serializer=pb.ModelInferRequest.SerializeToString,
                    response_deserializer=pb.ModelInferResponse.FromString,
                )
                assert array_of(await call(body)).tolist() == [0]

    async def test_method_by_parameter(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            response = await GRPCInferenceServiceStub(channel).ModelInfer(
                request_of(("x", "FP32", iris_rows()[:9]), method="predict_proba")
            )
        np.testing.assert_allclose(array_of(response), iris_model().predict_proba(iris_rows()[:9]))

    async def test_explicit_version(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            stub = GRPCInferenceServiceStub(channel)
            response = await stub.ModelInfer(request_of(("x", "FP32", iris_rows()[:1]), model_version="3"))
        assert response.model_version == "3"

    async def test_server_and_model_facts(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert (await stub.ServerLive(pb.ServerLiveRequest())).live
            assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
            assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "modelyard"
            assert (await stub.ModelReady(pb.ModelReadyRequest(name=DEPLOYMENT))).ready
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name=DEPLOYMENT, version="2"))).ready
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name="other"))).ready
            facts = await stub.ModelMetadata(pb.ModelMetadataRequest(name=DEPLOYMENT, version="3"))
        assert (facts.name, list(facts.versions), facts.platform) == (DEPLOYMENT, ["3"], "sklearn")
        assert [(item.name, item.datatype, list(item.shape)) for item in facts.inputs] == [
            ("x", "FP32", [-1, 4])
        ]
        assert [(item.name, item.datatype, list(item.shape)) for item in facts.outputs] == [
            ("label", "INT64", [-1])
        ]
        assert facts.properties["model_version"] == "prod.ml.iris_model/3"

    async def test_what_is_not_served_is_unimplemented(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            error = await refused(channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize("datatype", odd_runtime.DATATYPES)
    async def test_every_datatype_raw(self, odd: Replica, datatype: str) -> None:
        values = [[b"", "ä".encode()], [b"\xff\0", b"x" * 300]] if datatype == "BYTES" else [[0, 1], [1, 0]]
        array = np.array(values, dtype=DATATYPES[datatype].dtype)
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            response = await stub.ModelInfer(request_of(("d", datatype, array), method=f"echo_{datatype}"))
        assert response.outputs[0].datatype == datatype
        assert response.raw_output_contents[0] == to_raw(datatype, array)

    @pytest.mark.parametrize(
        ("datatype", "contents"),
        [
            ("BOOL", {"bool_contents": [True, False]}),
            ("INT8", {"int_contents": [-128, 127]}),
            ("INT16", {"int_contents": [-5, 5]}),
            ("INT32", {"int_contents": [-5, 5]}),
            ("INT64", {"int64_contents": [-(2**62), 5]}),
            ("UINT8", {"uint_contents": [0, 255]}),
            ("UINT16", {"uint_contents": [0, 5]}),
            ("UINT32", {"uint_contents": [0, 5]}),
            ("UINT64", {"uint64_contents": [2**63, 5]}),
            ("FP32", {"fp32_contents": [0.5, -1]}),
            ("FP64", {"fp64_contents": [0.1, -1]}),
            ("BYTES", {"bytes_contents": [b"a", b""]}),
        ],
    )
    async def test_typed_contents(self, odd: Replica, datatype: str, contents: dict[str, Any]) -> None:
        request = request_of(method=f"echo_{datatype}")
        request.inputs.add(
            name="d", datatype=datatype, shape=[1, 2], contents=pb.InferTensorContents(**contents)
        )
        async with channel_to(odd) as channel:
            response = await GRPCInferenceServiceStub(channel).ModelInfer(request)
        assert array_of(response).ravel().tolist() == next(iter(contents.values()))

    async def test_outputs_are_filtered_and_ordered(self, odd: Replica) -> None:
        inputs = (("x", "FP32", np.ones((2, 2), np.float32)), ("y", "INT64", np.arange(2)))
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            for wanted in (["y", "x"], ["x"], ["y"]):
                request = request_of(*inputs)
                for name in wanted:
                    request.outputs.add(name=name)
                response = await stub.ModelInfer(request)
                assert [output.name for output in response.outputs] == wanted
                assert len(response.raw_output_contents) == len(wanted)
            reversed_inputs = await stub.ModelInfer(request_of(*reversed(inputs)))
            assert array_of(reversed_inputs, 1).tolist() == [0, 1]

    async def test_a_model_that_is_not_row_wise(self, odd: Replica) -> None:
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            answers = await asyncio.gather(
                *(
                    stub.ModelInfer(request_of(("f", "FP32", np.full(3, n, np.float32)), method="fixed"))
                    for n in range(5)
                )
            )
        assert [array_of(answer).tolist() for answer in answers] == [[n] * 3 for n in range(5)]


X = np.ones((2, 4), np.float32)


class TestBadInput:
    @pytest.mark.parametrize(
        ("shape", "datatype", "name", "size", "text"),
        [
            ([2, 4], "FP32", "x", 31, "input byte size mismatch for input 'x' for model 'prod.ml.iris'. Expected 32, got 31"),
            ([2, 4], "FP32", "x", 33, "input byte size mismatch for input 'x' for model 'prod.ml.iris'. Expected 32, got 33"),
            ([2, 4], "FP32", "x", 0, "input byte size mismatch for input 'x' for model 'prod.ml.iris'. Expected 32, got 0"),
            ([2, 4], "FP64", "x", 64, "inference input 'x' data-type is 'FP64', but model 'prod.ml.iris' expects 'FP32'"),
            ([2, 4], "", "x", 32, "inference input 'x' data-type is '', but model 'prod.ml.iris' expects 'FP32'"),
            ([4, 2], "FP32", "x", 32, "unexpected shape for input 'x' for model 'prod.ml.iris'. Expected [-1,4], got [4,2]"),
            ([8], "FP32", "x", 32, "unexpected shape for input 'x' for model 'prod.ml.iris'. Expected [-1,4], got [8]"),
            ([], "FP32", "x", 4, "unexpected shape for input 'x' for model 'prod.ml.iris'. Expected [-1,4], got []"),
            ([-2, 4], "FP32", "x", 0, "unexpected shape for input 'x' for model 'prod.ml.iris'. Expected [-1,4], got [-2,4]"),
            ([2**62, 4], "FP32", "x", 32, f"input byte size mismatch for input 'x' for model 'prod.ml.iris'. Expected {2**66}, got 32"),
            ([0, 4], "FP32", "x", 0, "inference request batch-size must be >= 1 for 'prod.ml.iris'"),
            ([2, 4], "FP32", "z", 32, "unexpected inference input 'z' for model 'prod.ml.iris'"),
        ],
    )  # fmt: skip
    async def test_tensor(
        self, iris: Replica, shape: list[int], datatype: str, name: str, size: int, text: str
    ) -> None:
        request = pb.ModelInferRequest(model_name=DEPLOYMENT)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(b"\0" * size)
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
        info = reason_of(error)
        assert (info.reason, dict(info.metadata)) == ("INVALID_TENSOR", {"tensor": name})

    async def test_no_inputs(self, odd: Replica) -> None:
        request = request_of(("y", "INT64", np.arange(2)))
        async with channel_to(odd) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.details() == (
            "expected 2 inputs but got 1 inputs for model 'prod.ml.iris'. Got input(s) ['y'], "
            "but missing required input(s) ['x']. Please provide all required input(s)."
        )

    async def test_rows_must_agree(self, odd: Replica) -> None:
        request = request_of(("x", "FP32", np.ones((2, 2), np.float32)), ("y", "INT64", np.arange(3)))
        async with channel_to(odd) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.details() == "input 'y' batch size does not match other inputs for 'prod.ml.iris'"

    async def test_raw_and_typed(self, iris: Replica) -> None:
        request = request_of(("x", "FP32", X))
        request.inputs[0].contents.fp32_contents.extend([1.0] * 8)
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.details() == (
            "contents field must not be specified when using raw_input_contents for 'x' for model 'prod.ml.iris'"
        )

    async def test_no_data(self, iris: Replica) -> None:
        request = request_of(("x", "FP32", X))
        del request.raw_input_contents[:]
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert (
            error.details() == "unable to find data for input tensor 'x' for model 'prod.ml.iris' in request."
        )

    async def test_too_little_and_too_much_raw_data(self, odd: Replica) -> None:
        inputs = (("x", "FP32", np.ones((2, 2), np.float32)), ("y", "INT64", np.arange(2)))
        little, much = request_of(*inputs), request_of(*inputs)
        del little.raw_input_contents[1]
        much.raw_input_contents.append(b"")
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            error = await refused(stub.ModelInfer(little))
            assert (
                error.details()
                == "unable to find data for input tensor 'y' for model 'prod.ml.iris' in request."
            )
            assert "3 entries for 2 inputs" in str((await refused(stub.ModelInfer(much))).details())

    async def test_input_twice(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            error = await refused(
                GRPCInferenceServiceStub(channel).ModelInfer(request_of(("x", "FP32", X), ("x", "FP32", X)))
            )
        assert error.details() == "input 'x' already exists in request"

    async def test_unknown_output(self, iris: Replica) -> None:
        request = request_of(("x", "FP32", X))
        request.outputs.add(name="scores")
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.details() == "unexpected inference output 'scores' for model 'prod.ml.iris'"
        assert reason_of(error).metadata["tensor"] == "scores"

    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            (b"\1\0\0\0a", "expected 2 string elements for inference input 't', got 1"),
            (b"\1\0\0\0a" * 3, "unexpected number of string elements 3 for inference input 't', expecting 2"),
            (b"\1\0\0\0a\1\0\0", "incomplete string length indicator for inference input 't', expecting 4 bytes but only 3 bytes available"),
            (b"\1\0\0\0a\xff\xff\xff\xffb", f"incomplete string data for inference input 't', expecting string of length {2**32 - 1} but only 1 bytes available"),
        ],
    )  # fmt: skip
    async def test_bytes(self, odd: Replica, raw: bytes, text: str) -> None:
        request = request_of(method="texts")
        request.inputs.add(name="t", datatype="BYTES", shape=[1, 2])
        request.raw_input_contents.append(raw)
        async with channel_to(odd) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.details() == text
        assert reason_of(error).reason == "INVALID_TENSOR"

    @pytest.mark.parametrize(
        ("datatype", "contents", "text"),
        [
            ("INT8", {"int_contents": [300, 1]}, "holds a number that INT8 cannot"),
            ("INT8", {"int64_contents": [3, 1]}, "unexpected explicit tensor data for input tensor 'd'"),
            ("FP16", {"fp32_contents": [3, 1]}, "unexpected explicit tensor data for input tensor 'd'"),
            ("FP32", {"fp32_contents": [1]}, "input byte size mismatch for input 'd' for model 'prod.ml.iris'. Expected 8, got 4"),
            ("BYTES", {"bytes_contents": [b"a"]}, "expected 2 string elements for inference input 'd', got 1"),
        ],
    )  # fmt: skip
    async def test_typed(self, odd: Replica, datatype: str, contents: dict[str, Any], text: str) -> None:
        request = request_of(method=f"echo_{datatype}")
        request.inputs.add(
            name="d", datatype=datatype, shape=[1, 2], contents=pb.InferTensorContents(**contents)
        )
        async with channel_to(odd) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert text in str(error.details())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_unknown_model_and_version(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            stub = GRPCInferenceServiceStub(channel)
            for fields, text in (
                ({"model_name": "nothing"}, "Request for unknown model: 'nothing' is not found"),
                ({"model_version": "4"}, f"Request for unknown model: '{DEPLOYMENT}' version 4 is not found"),
            ):
                error = await refused(stub.ModelInfer(request_of(("x", "FP32", X), **fields)))
                assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, text)
                assert reason_of(error).reason == "RESOURCE_NOT_FOUND"
            for version in ("latest", "-1", "0", "1.5", "٣"):
                error = await refused(stub.ModelInfer(request_of(("x", "FP32", X), model_version=version)))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "failed to get model version from specified version string" in str(error.details())
                assert "version should be an integral value > 0" in str(error.details())
            error = await refused(stub.ModelMetadata(pb.ModelMetadataRequest(name="nothing")))
            assert error.code() is grpc.StatusCode.NOT_FOUND

    async def test_unknown_method(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            error = await refused(
                GRPCInferenceServiceStub(channel).ModelInfer(request_of(("x", "FP32", X), method="fit"))
            )
        assert "none of the methods predict, predict_proba" in str(error.details())
        assert reason_of(error).reason == "INVALID_FIELD"

    @pytest.mark.parametrize(
        "name", ["sequence_id", "sequence_start", "headers", "binary_data_output", "triton_x"]
    )
    async def test_reserved_parameters(self, iris: Replica, name: str) -> None:
        request = request_of(("x", "FP32", X))
        request.parameters[name].int64_param = 1
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error).metadata["field"] == f"parameters.{name}"

    @pytest.mark.parametrize("name", ["classification", "shared_memory_region"])
    async def test_reserved_parameters_of_outputs(self, iris: Replica, name: str) -> None:
        request = request_of(("x", "FP32", X))
        request.outputs.add(name="label").parameters[name].int64_param = 1
        async with channel_to(iris) as channel:
            error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(request))
        assert f"parameter '{name}' of output 'label' is not supported" in str(error.details())

    async def test_other_parameters_do_no_harm(self, iris: Replica) -> None:
        request = request_of(("x", "FP32", X))
        request.parameters["priority"].uint64_param = 1
        request.parameters["timeout"].int64_param = 60_000_000
        request.parameters["trace"].string_param = "mine"
        async with channel_to(iris) as channel:
            assert len((await GRPCInferenceServiceStub(channel).ModelInfer(request)).outputs) == 1

    async def test_errors_about_long_names_arrive(self, iris: Replica) -> None:
        for name in ("n" * 100_000, "ä" * 50_000):
            async with channel_to(iris) as channel:
                stub = GRPCInferenceServiceStub(channel)
                for request in (
                    request_of((name, "FP32", X)),
                    request_of(("x", "FP32", X), model_name=name),
                    request_of(("x", "FP32", X), model_version=name),
                    request_of(("x", "FP32", X), model_version="9" * 100_000),
                    request_of(("x", "FP32", X), method=name),
                ):
                    error = await refused(stub.ModelInfer(request))
                    assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
                    assert str(error.details()).endswith("…")
                    assert reason_of(error).reason in (
                        "INVALID_TENSOR",
                        "RESOURCE_NOT_FOUND",
                        "INVALID_FIELD",
                    )

    async def test_no_message_at_all(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
                error = await refused(
                    channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff\xff")
                )
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert reason_of(error).reason == "INVALID_FIELD"

    async def test_odd_numbers(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            error = await refused(
                GRPCInferenceServiceStub(channel).ModelInfer(request_of(("x", "FP32", X * np.nan)))
            )
        assert (error.code(), reason_of(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TENSOR")

    async def test_body_over_the_limit(self, odd: Replica) -> None:
        limit = odd.config.max_request_bytes
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            request = request_of(
                ("d", "UINT8", np.zeros((limit // 2 - 100, 2), np.uint8)), method="echo_UINT8"
            )
            assert len((await stub.ModelInfer(request)).raw_output_contents[0]) == limit - 200
            over = request_of(("d", "UINT8", np.zeros((limit // 2, 2), np.uint8)), method="echo_UINT8")
            error = await refused(stub.ModelInfer(over))
            assert (error.code(), reason_of(error).reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "REQUEST_TOO_LARGE",
            )
            assert reason_of(error).metadata["maximum"] == str(limit)
            far_over = request_of(("d", "UINT8", np.zeros((limit * 4, 2), np.uint8)), method="echo_UINT8")
            assert (await refused(stub.ModelInfer(far_over))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class TestModelFaults:
    async def test_the_words_of_the_model_stay_inside(
        self, odd: Replica, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            for value in (-1, 666):
                error = await refused(
                    stub.ModelInfer(request_of(("x", "FP32", np.array([value])), method="picky"))
                )
                assert error.code() is grpc.StatusCode.INTERNAL
                assert "secret" not in str(error.details())
                info = reason_of(error)
                assert info.reason == "MODEL_FAILED"
                assert info.metadata["error_id"] in str(error.details())
            assert info.metadata["error_id"] in {getattr(record, "error_id", "") for record in caplog.records}
            response = await stub.ModelInfer(request_of(("x", "FP32", np.array([5])), method="picky"))
        assert array_of(response).tolist() == [5]

    async def test_neighbours_of_a_bad_request_are_answered(self, odd: Replica) -> None:
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            busy = asyncio.ensure_future(
                stub.ModelInfer(request_of(("x", "FP32", np.ones(1)), method="wait"))
            )
            await exists(odd.config.model_directory / "started")
            calls = [
                asyncio.ensure_future(
                    stub.ModelInfer(request_of(("x", "FP32", np.array([value])), method="picky"))
                )
                for value in (1, -1, 2, 13, 3)
            ]
            await eventually(lambda: odd.lifecycle.in_flight == 6)
            (odd.config.model_directory / "release").touch()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await busy
        assert [array_of(answers[index]).tolist() for index in (0, 2, 4)] == [[1], [2], [3]]  # type: ignore[arg-type]
        assert [reason_of(answers[index]).reason for index in (1, 3)] == ["MODEL_FAILED", "INVALID_TENSOR"]  # type: ignore[arg-type]
        assert ("picky", 5) in odd_runtime.loaded[-1].runs

    async def test_health_answers_while_the_model_computes(self, odd: Replica) -> None:
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            busy = asyncio.ensure_future(
                stub.ModelInfer(request_of(("x", "FP32", np.ones(1)), method="wait"))
            )
            await exists(odd.config.model_directory / "started")
            assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
            assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
            (odd.config.model_directory / "release").touch()
            await busy

    async def test_full_queue_cancelled_callers_and_deadlines(self, odd: Replica) -> None:
        def wait(rows: int) -> pb.ModelInferRequest:
            return request_of(("x", "FP32", np.ones(rows)), method="wait")

        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            busy = asyncio.ensure_future(stub.ModelInfer(wait(1)))
            await exists(odd.config.model_directory / "started")
            first, second = (asyncio.ensure_future(stub.ModelInfer(wait(4))) for _ in range(2))
            await eventually(lambda: odd.lifecycle.in_flight == 3)
            error = await refused(stub.ModelInfer(wait(3)))
            assert (error.code(), reason_of(error).reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
            )
            assert reason_of(error).metadata["maximum"] == "10"
            second.cancel()
            await eventually(lambda: odd.lifecycle.in_flight == 2)
            # The cancelled rows make room.
            third = asyncio.ensure_future(stub.ModelInfer(wait(3)))
            error = await refused(stub.ModelInfer(wait(1), timeout=0.05))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            late = wait(1)
            late.parameters["timeout"].int64_param = 1000
            error = await refused(stub.ModelInfer(late))
            assert (error.code(), reason_of(error).reason) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "DEADLINE_EXCEEDED",
            )
            (odd.config.model_directory / "release").touch()
            answers = await asyncio.gather(busy, first, third)
        assert [len(array_of(answer)) for answer in answers] == [1, 4, 3]
        # What nobody waited for was not computed.
        assert [rows for method, rows in odd_runtime.loaded[-1].runs if method == "wait"][-2:] == [1, 7]

    async def test_many_callers_get_their_own_rows(self, odd: Replica) -> None:
        async def caller(stub: Any, start: int) -> None:
            for rows in range(1, 6):
                values = np.arange(start, start + rows)
                halves = np.stack([values, -values], axis=1).astype(np.float32)
                response = await stub.ModelInfer(request_of(("x", "FP32", halves), ("y", "INT64", values)))
                assert array_of(response, 0).tolist() == halves.tolist()
                assert array_of(response, 1).tolist() == values.tolist()

        odd_runtime.loaded[-1].runs.clear()
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            # Two callers never exceed the ten rows of this replica's queue.
            await asyncio.gather(*(caller(stub, 100 * number) for number in range(2)))


class TestLife:
    async def test_socket_is_private(self, iris: Replica) -> None:
        assert stat.S_IMODE(iris.config.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(iris.config.socket.parent.stat().st_mode) == 0o700

    async def test_not_ready_until_loaded(
        self, tmp_path: Path, sockets: Path, make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(runtimes.RUNTIMES, odd_runtime.NAME, odd_runtime.MODULE)  # type: ignore[arg-type]
        config = iris_config(tmp_path, sockets, runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE)
        replica = Replica(config, make_front=make_front)
        allowed = asyncio.Event()
        load = replica._engine.load

        async def late() -> None:
            await allowed.wait()
            await load()

        monkeypatch.setattr(replica._engine, "load", late)
        starting = asyncio.ensure_future(replica.start())
        await exists(config.socket)
        async with channel_to(replica) as channel:
            stub = GRPCInferenceServiceStub(channel)
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=DEPLOYMENT)
            )
            updates = aiter(watch)
            assert (await anext(updates)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await health(channel, DEPLOYMENT) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await stub.ServerLive(pb.ServerLiveRequest())).live
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name=DEPLOYMENT))).ready
            error = await refused(stub.ModelInfer(request_of(("x", "FP32", np.ones(1)), method="picky")))
            assert (error.code(), reason_of(error).reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "REPLICA_NOT_READY",
            )
            allowed.set()
            await starting
            assert (await anext(updates)).status == health_pb2.HealthCheckResponse.SERVING
            assert await health(channel, DEPLOYMENT) == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
        await replica.stop()

    async def test_copies_of_the_model_predict_at_the_same_time(
        self, tmp_path: Path, sockets: Path, make_front: MakeFront, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(runtimes.RUNTIMES, odd_runtime.NAME, odd_runtime.MODULE)  # type: ignore[arg-type]
        config = iris_config(
            tmp_path, sockets, runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE, instances=2
        )
        replica = Replica(config, make_front=make_front)
        await replica.start()
        copies = odd_runtime.loaded[-2:]
        for copy in copies:
            copy.runs.clear()
        request = request_of(("x", "FP32", np.ones(1)), method="wait")
        async with channel_to(replica) as channel:
            stub = GRPCInferenceServiceStub(channel)
            both = []
            for begun in (1, 2):  # each while the one before runs, so that they share no run
                both.append(asyncio.ensure_future(stub.ModelInfer(request)))
                await eventually(lambda: sum(len(copy.runs) for copy in copies) == begun)  # noqa: B023 - awaited here
            assert [copy.runs for copy in copies] == [[("wait", 1)], [("wait", 1)]]
            (tmp_path / "release").touch()
            await asyncio.gather(*both)
        await replica.stop()
        assert not replica.stuck

    async def test_health_of_something_else(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            error = await refused(
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
            )
            assert error.code() is grpc.StatusCode.NOT_FOUND
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="other"))
            assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            watch.cancel()

    async def test_drains(self, odd: Replica) -> None:
        async with channel_to(odd) as channel:
            stub = GRPCInferenceServiceStub(channel)
            busy = asyncio.ensure_future(
                stub.ModelInfer(request_of(("x", "FP32", np.ones(2)), method="wait"))
            )
            await exists(odd.config.model_directory / "started")
            draining = asyncio.ensure_future(odd.drain())
            await eventually(lambda: not odd.lifecycle.ready)
            assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
            error = await refused(stub.ModelInfer(request_of(("x", "FP32", np.ones(1)), method="picky")))
            assert (error.code(), reason_of(error).reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "REPLICA_NOT_READY",
            )
            assert not draining.done()
            (odd.config.model_directory / "release").touch()
            assert array_of(await busy).tolist() == [1, 1]
            await draining
        assert (odd.config.model_directory / "unloaded").exists()

    async def test_a_failed_load_says_why(self, tmp_path: Path, sockets: Path, make_front: MakeFront) -> None:
        replica = Replica(iris_config(tmp_path, sockets), make_front=make_front)
        with pytest.raises(LoadError, match=r"no model\.skops"):
            await replica.start()
        await replica.stop()

    async def test_a_model_that_answers_something_else(
        self, tmp_path: Path, sockets: Path, make_front: MakeFront
    ) -> None:
        inputs = (TensorSpec("x", "FP32", (-1, 4)),)
        for name, output, text in (
            (
                "predict_proba",
                TensorSpec("p", "FP64", (-1, 2)),
                r"gives the shape \[1, 3\], the signature says \[-1, 2\]",
            ),
            ("predict_proba", TensorSpec("p", "INT64", (-1, 3)), "gives float32, the signature says INT64"),
        ):
            signature = Signature((MethodSignature(name, inputs, (output,)),))
            replica = Replica(
                iris_config(write_iris(tmp_path), sockets, signature=signature), make_front=make_front
            )
            with pytest.raises(LoadError, match=text):
                await replica.start()
            await replica.stop()


class TestRest:
    async def test_predicts(self, iris: Replica) -> None:
        rows = iris_rows()[:3]
        for data in (rows.tolist(), rows.ravel().tolist()):
            answer = await rest(iris, {"id": "a", "inputs": [rest_input("x", "FP32", [3, 4], data)]})
            assert answer == {
                "model_name": DEPLOYMENT,
                "model_version": "3",
                "id": "a",
                "parameters": {
                    "modelyard_model": "prod.ml.iris_model",
                    "modelyard_artifact": "sha256:" + "ab" * 32,
                },
                "outputs": [
                    {
                        "name": "label",
                        "shape": [3],
                        "datatype": "INT64",
                        "data": iris_model().predict(rows).tolist(),
                    }
                ],
            }

    async def test_method_and_outputs(self, iris: Replica) -> None:
        answer = await rest(
            iris,
            {
                "parameters": {"method": "predict_proba"},
                "inputs": [rest_input("x", "FP32", [1, 4], iris_rows()[0].tolist())],
                "outputs": [{"name": "scores"}],
            },
        )
        np.testing.assert_allclose(
            answer["outputs"][0]["data"], iris_model().predict_proba(iris_rows()[:1])[0]
        )

    @pytest.mark.parametrize(
        ("datatype", "data"),
        [
            ("BOOL", [True, False]),
            ("INT8", [-128, 127]),
            ("UINT64", [2**64 - 1, 0]),
            ("FP16", [0.5, -2.0]),
            ("BF16", [0.5, -2.0]),
            ("FP32", [1, 0.5]),
            ("FP64", ["NaN", "-Infinity"]),
            ("BYTES", ["ä", ""]),
        ],
    )
    async def test_datatypes(self, odd: Replica, datatype: str, data: list[Any]) -> None:
        answer = await rest(
            odd,
            {
                "parameters": {"method": f"echo_{datatype}"},
                "inputs": [rest_input("d", datatype, [1, 2], [data])],
            },
        )
        assert answer["outputs"][0]["data"] == data

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "body: is not JSON"),
            (b"{", "body: is not JSON"),
            (b"[" * 100_00, "body: is not JSON"),
            (b"[]", "must be a JSON object"),
            ({}, "expected 1 inputs but got 0 inputs"),
            ({"inputs": {}}, "inputs: must be a list of objects"),
            ({"inputs": [{}]}, "inputs[0].name"),
            ({"inputs": [{"name": "x"}]}, "inputs[0].shape"),
            ({"inputs": [{"name": "x", "shape": [1, 4]}]}, "inputs[0].datatype"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32"}]}, "unable to find data"),
            ({"inputs": [{"name": "x", "shape": [1, True], "datatype": "FP32", "data": []}]}, "whole numbers"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": 1}]}, "'data' must be a list"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3]}]}, "takes 4 values, but 'data' has 3"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, "4"]}]}, "must be numbers"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, None]}]}, "must be numbers"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, True]}]}, "must be numbers"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 1e39]}]}, "holds a number that FP32 cannot"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 10**400]}]}, "holds a number that FP32 cannot"),
            ({"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [1] * 5}]}, "Expected [-1,4], got [1,5]"),
            ({"inputs": [{"name": "y", "shape": [1, 4], "datatype": "FP32", "data": [1] * 4}]}, "unexpected inference input 'y'"),
            ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}, "binary_data_size"),
            (b'{"id": "\\ud800", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}', "id: must be text"),
            (b'{"inputs": [{"name": "\\ud800", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}', "unexpected inference input"),
            ({"id": 5, "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1] * 4}]}, "id: must be text"),
        ],
    )  # fmt: skip
    async def test_bad_bodies(self, iris: Replica, body: Any, text: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest(iris, body)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert text in str(caught.value.details())

    async def test_the_forms_of_mlflow_and_oci(self, iris: Replica) -> None:
        expected = iris_model().predict(iris_rows()).tolist()
        columns = {"columns": ["a", "b", "c", "d"], "data": iris_rows().tolist()}
        asked = {"dataframe_split": columns, "params": {"method": "predict"}}
        assert (await invoke(iris, "invocations", asked))["predictions"] == expected
        assert (await invoke(iris, "predict", iris_rows().tolist()))["prediction"] == expected
        for form, body in (("predict", [[1]]), ("other", [[1, 2, 3, 4]])):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await invoke(iris, form, body)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_describe_ready_and_unknown(self, iris: Replica) -> None:
        async with channel_to(iris) as channel:
            stub = RestInferenceServiceStub(channel)
            described = await stub.Describe(rest_pb.DescribeRequest(model_name=DEPLOYMENT))
            assert json.loads(described.body.data)["inputs"] == [
                {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
            ]
            ready = await stub.Ready(rest_pb.ReadyRequest(model_name=DEPLOYMENT, model_version="3"))
            assert json.loads(ready.body.data) == {"name": DEPLOYMENT, "ready": True}
            assert ready.body.content_type == "application/json"
            for call in (
                stub.Describe(rest_pb.DescribeRequest(model_name="other")),
                stub.Ready(rest_pb.ReadyRequest(model_name=DEPLOYMENT, model_version="9")),
                stub.Infer(rest_pb.InferRequest(model_name="other")),
            ):
                assert (await refused(call)).code() is grpc.StatusCode.NOT_FOUND


class TestTritonClient:
    """The peers' client, unmodified."""

    async def test_async(self, iris: Replica) -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(iris.config.listen) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(DEPLOYMENT)
            assert not await client.is_model_ready("other")
            facts = await client.get_model_metadata(DEPLOYMENT, as_json=True)
            assert facts["inputs"][0]["shape"] == ["-1", "4"]
            tensor = tritonclient.grpc.InferInput("x", [150, 4], "FP32").set_data_from_numpy(iris_rows())
            wanted = [tritonclient.grpc.InferRequestedOutput("label")]
            result = await client.infer(
                DEPLOYMENT, [tensor], request_id="7", outputs=wanted, model_version="3"
            )
            assert result.as_numpy("label").tolist() == iris_model().predict(iris_rows()).tolist()
            assert result.get_response().id == "7"
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("other", [tensor])
            bad_input = tritonclient.grpc.InferInput("x", [1, 3], "FP32")
            bad_input.set_data_from_numpy(np.ones((1, 3), np.float32))
            with pytest.raises(InferenceServerException, match="unexpected shape for input 'x'"):
                await client.infer(DEPLOYMENT, [bad_input])

    async def test_sync_with_text_and_parameters(self, odd: Replica) -> None:
        def run() -> Any:
            with tritonclient.grpc.InferenceServerClient(odd.config.listen) as client:
                words = np.array([["a", "ü"]], dtype=object)
                tensor = tritonclient.grpc.InferInput("t", [1, 2], "BYTES").set_data_from_numpy(words)
                return client.infer(
                    DEPLOYMENT, [tensor], parameters={"method": "texts"}, timeout=5_000_000, priority=1
                ).as_numpy("t")

        assert (await asyncio.to_thread(run)).tolist() == [[b"a", "ü".encode()]]

    @pytest.mark.parametrize("datatype", ["FP16", "BF16"])
    async def test_half_precision(self, odd: Replica, datatype: str) -> None:
        values = np.array([[0.5, -2.0]], np.float16 if datatype == "FP16" else ml_dtypes.bfloat16)
        tensor = tritonclient.grpc.InferInput("d", [1, 2], datatype).set_data_from_numpy(values)
        async with tritonclient.grpc.aio.InferenceServerClient(odd.config.listen) as client:
            result = await client.infer(DEPLOYMENT, [tensor], parameters={"method": f"echo_{datatype}"})
        assert result.as_numpy("d").tolist() == values.tolist()


async def rest(replica: Replica, body: Any) -> Any:
    request = rest_pb.InferRequest(model_name=DEPLOYMENT)
    request.body.content_type = "application/json"
    request.body.data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with channel_to(replica) as channel:
        answer = await RestInferenceServiceStub(channel).Infer(request)
    assert answer.body.content_type == "application/json"
    return json.loads(answer.body.data)


async def invoke(replica: Replica, form: str, body: Any) -> Any:
    request = rest_pb.InvokeRequest(model_name=DEPLOYMENT, form=form)
    request.body.data = json.dumps(body).encode()
    async with channel_to(replica) as channel:
        answer = await RestInferenceServiceStub(channel).Invoke(request)
    assert answer.body.content_type == "application/json"
    return json.loads(answer.body.data)


def rest_input(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


async def health(channel: Any, service: str = "") -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def exists(path: Path) -> None:
    await eventually(path.exists)
