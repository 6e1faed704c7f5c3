"""A replica keeps digests of what it answered to predictions that are compared, until somebody takes them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from modelyard.api.inference.v1.replica_service_pb2 import Sample, TakeSamplesRequest, TakeSamplesResponse
from modelyard.api.inference.v1.replica_service_pb2_grpc import ReplicaServiceStub
from modelyard.api.oip.v2 import rest_inference_pb2 as rest_pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard.api.oip.v2.rest_inference_pb2_grpc import RestInferenceServiceStub
from modelyard_inference.ports import Taken
from modelyard_inference.probe import ReplicaProber
from modelyard_inference.replica.app import Replica
from modelyard_inference.replica.samples import Samples
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_rows, write_iris
from tests.conformance.test_replica_oip import channel_to, request_of, rest_input


@pytest.fixture
async def iris(tmp_path: Path) -> AsyncIterator[Replica]:
    with tempfile.TemporaryDirectory(prefix="my") as sockets:
        replica = Replica(iris_config(write_iris(tmp_path), Path(sockets) / "s"))
        await replica.start()
        yield replica
        await replica.stop()


async def predict(replica: Replica, sample: str, rows: slice = slice(2), method: str = "predict") -> None:
    metadata = [("modelyard-sample", sample)] if sample else []
    request = request_of(("x", "FP32", iris_rows()[rows]), method=method)
    async with channel_to(replica) as channel:
        await GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata)


async def taken(replica: Replica) -> list[Sample]:
    async with channel_to(replica) as channel:
        answer = await ReplicaServiceStub(channel).TakeSamples(TakeSamplesRequest())
    assert answer.forgotten == 0
    return list(answer.samples)


async def test_equal_answers_have_equal_digests_whatever_form_they_took(iris: Replica) -> None:
    await predict(iris, "a")
    await predict(iris, "b")
    await predict(iris, "c", slice(48, 52))  # other labels
    await predict(iris, "d", method="predict_proba")
    await predict(iris, "")
    body = {"inputs": [rest_input("x", "FP32", [2, 4], iris_rows()[:2].ravel().tolist())]}
    request = rest_pb.InferRequest(model_name=DEPLOYMENT)
    request.body.data = json.dumps(body).encode()
    async with channel_to(iris) as channel:
        await RestInferenceServiceStub(channel).Infer(request, metadata=[("modelyard-sample", "e")])
    found = {sample.id: sample.digest for sample in await taken(iris)}
    assert list(found) == ["a", "b", "c", "d", "e"]
    assert found["a"] == found["b"] == found["e"]
    assert len(set(found.values())) == 3
    assert await taken(iris) == []


async def test_refusals_are_kept_with_their_reason(iris: Replica) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await predict(iris, "a", method="none")
    (sample,) = await taken(iris)
    assert (sample.id, sample.digest, sample.error) == ("a", b"", "INVALID_FIELD")


async def test_the_prober_takes_what_is_there_and_nothing_from_who_is_gone(iris: Replica) -> None:
    await predict(iris, "a")
    prober = ReplicaProber()
    found = await prober.take_samples(iris.config.listen)
    assert [(sample.id, sample.error, len(sample.digest)) for sample in found.samples] == [("a", "", 32)]
    await iris.stop()
    assert await prober.take_samples(iris.config.listen) == Taken((), 0)
    await prober.close()


def test_only_the_last_samples_are_kept() -> None:
    samples = Samples(max_kept=2)
    for number in range(5):
        samples.answered(str(number), b"x")
    answer = TakeSamplesResponse.FromString(samples.take())
    assert ([sample.id for sample in answer.samples], answer.forgotten) == (["3", "4"], 3)
    assert TakeSamplesResponse.FromString(samples.take()).forgotten == 0
