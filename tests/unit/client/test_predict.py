from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from modelyard import Client, errors
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.tensors import from_raw, to_raw

from .fake import Fake, Refusal
from .test_tensors import Frame

NAME = "prod.ml.iris"


class Endpoint:
    """A deployment that answers with the row sums of its inputs."""

    def __init__(self, fake: Fake, **inputs: tuple[str, list[int]]) -> None:
        self.inputs = inputs or {"input": ("FP64", [-1, 2])}
        self.output: tuple[str, Any] = ("FP64", None)
        fake.answers.update(ModelMetadata=self.metadata, ModelInfer=self.infer)

    def metadata(self, request: Any) -> Any:
        tensors = [{"name": n, "datatype": t, "shape": s} for n, (t, s) in self.inputs.items()]
        return oip.ModelMetadataResponse(name=request.name, inputs=tensors)

    def infer(self, request: Any) -> Any:
        for tensor in request.inputs:
            if self.inputs.get(tensor.name, ("", []))[0] != tensor.datatype:
                raise Refusal("INVALID_ARGUMENT", "INVALID_TENSOR", metadata={"tensor": tensor.name})
        arrays = [
            from_raw(t.datatype, t.shape, raw)
            for t, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        ]
        datatype, values = self.output
        if values is None:
            values = sum(array.reshape(len(array), -1).sum(axis=1, dtype=float) for array in arrays)
        answer = oip.ModelInferResponse(model_name=request.model_name, model_version="3")
        answer.parameters["modelyard_model"].string_param = NAME
        answer.parameters["modelyard_artifact"].string_param = "sha256:ab"
        answer.outputs.add(name="output", datatype=datatype, shape=values.shape)
        answer.raw_output_contents.append(to_raw(values, datatype))
        return answer


def test_a_prediction_says_what_answered(fake: Fake, client: Client) -> None:
    Endpoint(fake)
    prediction = client.predict(NAME, [[1, 2], [3, 4]])
    assert prediction.output.tolist() == [3.0, 7.0]
    assert (prediction.model, prediction.model_version, prediction.artifact_digest) == (NAME, 3, "sha256:ab")
    assert fake.metadata("ModelInfer")[0]["modelyard-deployment"] == NAME
    assert fake.metadata("ModelMetadata")[0]["modelyard-deployment"] == NAME


def test_the_metadata_is_asked_once_and_again_when_it_no_longer_fits(fake: Fake, client: Client) -> None:
    endpoint = Endpoint(fake)
    for _ in range(3):
        client.predict(NAME, [[1.0, 2.0]])
    assert len(fake.requests("ModelMetadata")) == 1
    endpoint.inputs = {"features": ("FP32", [-1, 2])}
    assert client.predict(NAME, [[1.0, 2.0]]).output.tolist() == [3.0]
    assert len(fake.requests("ModelMetadata")) == 2
    assert fake.requests("ModelInfer")[-1].inputs[0].datatype == "FP32"


def test_an_input_that_never_fits_is_refused_after_one_look(fake: Fake, client: Client) -> None:
    Endpoint(fake, a=("FP64", [-1]), b=("FP64", [-1]))
    with pytest.raises(errors.InvalidTensor, match="b missing and c unknown; the model takes a, b"):
        client.predict(NAME, {"a": [1.0], "c": [1.0]})
    with pytest.raises(errors.InvalidTensor, match="give a dict of arrays: a, b"):
        client.predict(NAME, [[1.0, 2.0, 3.0]])
    with pytest.raises(errors.InvalidTensor, match="tensor 'a' takes FP64"):
        client.predict(NAME, {"a": ["x"], "b": [1.0]})
    assert not fake.requests("ModelInfer")


def test_tables_and_matrices_are_spread_over_columns(fake: Fake, client: Client) -> None:
    Endpoint(fake, a=("FP64", [-1]), b=("INT64", [-1]))
    assert client.predict(NAME, Frame(b=[1, 2], a=[0.5, 0.5])).output.tolist() == [1.5, 2.5]
    assert client.predict(NAME, np.array([[1, 2]])).output.tolist() == [3.0]
    sent = fake.requests("ModelInfer")[0]
    assert [(t.name, list(t.shape)) for t in sent.inputs] == [("a", [2]), ("b", [2])]


def test_method_version_and_outputs_go_along(fake: Fake, client: Client) -> None:
    Endpoint(fake)
    client.predict(NAME, [[1.0, 2.0]], version=3, method="predict_proba", outputs=["output"])
    sent = fake.requests("ModelInfer")[0]
    assert sent.parameters["method"].string_param == "predict_proba"
    assert sent.model_version == "3"
    assert [o.name for o in sent.outputs] == ["output"]
    assert fake.requests("ModelMetadata")[0].version == "3"


def test_texts_come_back_as_texts(fake: Fake, client: Client) -> None:
    Endpoint(fake).output = ("BYTES", np.array(["setosa"], dtype=object))
    assert client.predict(NAME, [[1.0, 2.0]]).output.tolist() == ["setosa"]
    assert client.endpoints.predict(NAME, [[1.0, 2.0]], decode_text=False).output.tolist() == [b"setosa"]


def test_an_answer_with_too_few_bytes_is_refused(fake: Fake, client: Client) -> None:
    Endpoint(fake)
    answer = oip.ModelInferResponse(outputs=[{"name": "output", "datatype": "FP64", "shape": [2]}])
    answer.raw_output_contents.append(b"1234")
    fake.answers["ModelInfer"] = lambda _: answer
    with pytest.raises(errors.InvalidTensor, match="needs 16 bytes, there are 4"):
        client.predict(NAME, [[1.0, 2.0]])


def test_several_outputs_are_taken_by_name(fake: Fake, client: Client) -> None:
    Endpoint(fake)
    answer = oip.ModelInferResponse(outputs=[{"name": n, "datatype": "UINT8", "shape": [1]} for n in "ab"])
    answer.raw_output_contents.extend([b"\1", b"\2"])
    fake.answers["ModelInfer"] = lambda _: answer
    prediction = client.predict(NAME, [[1.0, 2.0]])
    assert {name: array.tolist() for name, array in prediction.outputs.items()} == {"a": [1], "b": [2]}
    with pytest.raises(ValueError, match="2 outputs, use"):
        _ = prediction.output


def test_what_a_replica_counted_is_told(fake: Fake, client: Client) -> None:
    part = oip.StatisticDuration(count=2, ns=300)
    parts = oip.InferStatistics(success=part, fail=oip.StatisticDuration(count=1), queue=part)
    found = oip.ModelStatistics(
        name=NAME, version="3", last_inference=1_500, inference_count=7, inference_stats=parts
    )
    fake.answers["ModelStatistics"] = lambda _: oip.ModelStatisticsResponse(model_stats=[found])
    told = client.endpoints.statistics(NAME, version=3)
    assert (told.version, told.inference_count, told.success_count, told.failure_count) == ("3", 7, 2, 1)
    assert (told.request_ns, told.queue_ns, told.compute_infer_ns) == (300, 300, 0)
    assert told.last_inference == datetime.fromtimestamp(1.5, UTC)
    assert fake.metadata("ModelStatistics")[0]["modelyard-deployment"] == NAME
    assert fake.requests("ModelStatistics")[0].version == "3"
