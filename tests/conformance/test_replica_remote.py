"""A replica that passes predictions on to another server of the Open Inference Protocol: here another replica, by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard import RemoteModel
from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2 import rest_inference_pb2 as rest_pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard.api.oip.v2.rest_inference_pb2_grpc import RestInferenceServiceStub
from modelyard.flavors import remote as flavor
from modelyard.types import TensorSpec as Spec
from modelyard_inference.replica import remote as passing
from modelyard_inference.replica.app import Replica
from modelyard_inference.replica.lifecycle import State
from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from tests.conformance.fake_replica import FakeReplica
from tests.conformance.replicas import DEPLOYMENT, IRIS, iris_config, iris_model, iris_rows
from tests.conformance.test_gateway_tls import pair
from tests.conformance.test_replica_oip import (  # noqa: F401 - fixtures
    array_of,
    channel_to,
    iris,
    make_front,
    reason_of,
    refused,
    request_of,
    sockets,
)
from tests.framework.waiting import eventually

OURS = "prod.ml.passed_on"
ONE_METHOD = Signature(IRIS.methods[:1])
X = Spec("x", "FP32", (-1, 4))


def remote_config(folder: Path, sockets: Path, model: RemoteModel, **changes: Any) -> Any:  # noqa: F811
    """Return the configuration of a replica that passes on to a model, which it may."""
    (folder / "remote").mkdir(exist_ok=True)
    (folder / "remote/remote.json").write_text(model.to_json())
    allowed = folder / "backends.json"
    if not allowed.exists():
        allowed.write_text(json.dumps({model.url: {}}))
        allowed.chmod(0o600)
    values = {"deployment": OURS, "runtime": "remote", "signature": ONE_METHOD, "backends_file": str(allowed)}
    return iris_config(folder / "remote", sockets, **{**values, **changes})


@asynccontextmanager
async def started(config: Any) -> AsyncIterator[Replica]:
    replica = Replica(config)
    try:
        await replica.start()
        yield replica
    finally:
        await replica.stop()


@pytest.fixture
async def passed_on(iris: Replica, tmp_path: Path, sockets: Path) -> AsyncIterator[Replica]:  # noqa: F811
    """A replica whose model is the one of `iris`."""
    config = remote_config(tmp_path, sockets, RemoteModel(iris.config.listen, DEPLOYMENT))
    async with started(config) as replica:
        yield replica


async def test_answers_as_the_other_server_under_its_own_name(passed_on: Replica, iris: Replica) -> None:  # noqa: F811
    async with channel_to(passed_on) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = request_of(("x", "FP32", iris_rows()), model_name=OURS, id="my-id")
        answer = await stub.ModelInfer(request)
        assert (await stub.ModelReady(pb.ModelReadyRequest(name=OURS))).ready
        assert array_of(answer).tolist() == iris_model().predict(iris_rows()).tolist()
        assert (answer.model_name, answer.model_version, answer.id) == (OURS, "3", "my-id")
        assert answer.parameters["modelyard_artifact"].string_param == passed_on.config.artifact_digest
        error = await refused(stub.ModelInfer(request_of(("x", "FP32", iris_rows()))))  # the name there
        assert error.code() is grpc.StatusCode.NOT_FOUND
        answers = [
            array_of(each.infer_response)[0]
            async for each in stub.ModelStreamInfer(
                [request_of(("x", "FP32", iris_rows()[n : n + 1]), model_name=OURS) for n in (0, 149)]
            )
        ]
        assert answers == [0, 2]
        body = {"content_type": "application/json", "data": b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'}
        invoke = rest_pb.InvokeRequest(model_name=OURS, form="invocations", body=body)
        told = await RestInferenceServiceStub(channel).Invoke(invoke)
        assert json.loads(told.body.data) == {"predictions": [0]}
    assert passed_on.lifecycle.in_flight == iris.lifecycle.in_flight == 0


async def test_answers_tritons_client_and_tells_what_it_takes(passed_on: Replica, iris: Replica) -> None:  # noqa: F811
    signature = await asyncio.to_thread(flavor.infer, RemoteModel(iris.config.listen, DEPLOYMENT))
    (method,) = signature.methods
    assert (method.name, method.inputs, method.outputs) == ("predict", (X,), (Spec("label", "INT64", (-1,)),))
    async with tritonclient.grpc.aio.InferenceServerClient(passed_on.config.listen) as client:
        metadata = await client.get_model_metadata(OURS)
        assert [(item.name, item.datatype) for item in metadata.inputs] == [("x", "FP32")]
        tensor = tritonclient.grpc.aio.InferInput("x", [150, 4], "FP32").set_data_from_numpy(iris_rows())
        answer = await client.infer(OURS, [tensor])
        assert answer.as_numpy("label").tolist() == iris_model().predict(iris_rows()).tolist()


@pytest.fixture
async def fake(sockets: Path) -> AsyncIterator[FakeReplica]:  # noqa: F811
    """A server that echoes, and does as it is told."""
    sockets.mkdir()
    server = await FakeReplica(sockets / "fake", "7").start()
    yield server
    await server.stop()


ECHO = Signature(
    (MethodSignature("predict", (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),)),)
)
ONES = np.ones(3, np.float32)


def echo(**changes: Any) -> pb.ModelInferRequest:
    return request_of(("x", "FP32", ONES), model_name=OURS, **changes)


@pytest.fixture
async def echoing(fake: FakeReplica, tmp_path: Path, sockets: Path) -> AsyncIterator[Replica]:  # noqa: F811
    config = remote_config(
        tmp_path, sockets, RemoteModel(fake.address, "there", "2"), signature=ECHO, max_queue_rows=7
    )
    async with started(config) as replica:
        yield replica


async def test_predictions_are_under_way_at_once_and_bounded_by_rows(
    echoing: Replica, fake: FakeReplica
) -> None:
    async with channel_to(echoing) as channel:
        stub = GRPCInferenceServiceStub(channel)
        fake.running.clear()
        two = [asyncio.ensure_future(stub.ModelInfer(echo())) for _ in range(2)]
        await eventually(lambda: fake.at_once == 2)
        full = await refused(stub.ModelInfer(echo()))
        assert (full.code(), reason_of(full).reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        two[0].cancel()  # and with it goes what it takes up, there too
        await eventually(lambda: fake.at_once == 1)
        late = await refused(stub.ModelInfer(echo(), timeout=0.05))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: fake.at_once == 1)
        fake.running.set()
        assert array_of(await two[1]).tolist() == ONES.tolist()
    assert set(fake.asked) == {"there"}
    assert echoing.lifecycle.in_flight == 0


@pytest.mark.parametrize(
    ("there", "here", "reason"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_TENSOR"),
        ("UNAVAILABLE", "UNAVAILABLE", "REPLICA_NOT_READY"),
        ("NOT_FOUND", "UNAVAILABLE", "REPLICA_NOT_READY"),
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        ("INTERNAL", "INTERNAL", "MODEL_FAILED"),
        ("UNAUTHENTICATED", "INTERNAL", "MODEL_FAILED"),
    ],
)
async def test_a_refusal_of_the_other_server_is_told_as_what_it_means_here(
    echoing: Replica, fake: FakeReplica, there: str, here: str, reason: str
) -> None:
    fake.fail_with = grpc.StatusCode[there]
    async with channel_to(echoing) as channel:
        error = await refused(GRPCInferenceServiceStub(channel).ModelInfer(echo()))
    assert (error.code().name, reason_of(error).reason) == (here, reason)
    # Its words are the caller's business only if they are about what the caller sent.
    assert ("50% sure" in str(error.details())) is (there == "INVALID_ARGUMENT")


async def test_ready_only_while_the_other_server_is(
    echoing: Replica, fake: FakeReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "CHECK_SECONDS", 0.02)
    told: list[str] = []
    following = asyncio.ensure_future(echoing.follow(told.append))
    async with channel_to(echoing) as channel:
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        states = health_pb2.HealthCheckResponse
        fake.fail_with = grpc.StatusCode.NOT_FOUND
        await eventually(lambda: bool(told))
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == states.NOT_SERVING
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name=OURS))).ready
        error = await refused(stub.ModelInfer(echo()))
        assert (error.code(), echoing.lifecycle.state) == (grpc.StatusCode.UNAVAILABLE, State.WAITING)
        assert "waiting for the server that runs its model" in str(error.details())
        fake.fail_with = None
        await eventually(lambda: told[-1] == "")
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == states.SERVING
        assert array_of(await stub.ModelInfer(echo())).tolist() == ONES.tolist()
    assert f"the model 'there' on {fake.address} is not ready: NOT_FOUND" in told[0]
    following.cancel()
    await echoing.drain()
    assert echoing.lifecycle.state is State.DRAINING


async def test_tls_and_what_calls_are_sent_with(tmp_path: Path, sockets: Path) -> None:  # noqa: F811
    ours, stranger = pair("localhost", 1), pair("localhost", 2)
    sockets.mkdir()
    fake = FakeReplica(sockets / "fake", "7")
    credentials = grpc.ssl_server_credentials([(ours.key, ours.certificate)])
    port = fake._server.add_secure_port("127.0.0.1:0", credentials)
    await fake.start()
    url = f"grpcs://127.0.0.1:{port}"
    allowed = tmp_path / "backends.json"
    ca, _ = ours.put(tmp_path, "ours")
    allowed.write_text(json.dumps({url: {"ca": str(ca), "metadata": {"authorization": "Bearer secret"}}}))
    allowed.chmod(0o600)
    config = remote_config(tmp_path, sockets, RemoteModel(url, "there"), signature=ECHO)
    async with started(config) as replica, channel_to(replica) as channel:
        stub = GRPCInferenceServiceStub(channel)
        sent = (("x-request-id", "my-id"), ("authorization", "Bearer of-the-caller"), ("x-customer", "7"))
        await stub.ModelInfer(echo(), metadata=sent)
        got = {key: fake.metadata.get(key) for key in ("authorization", "x-request-id", "x-customer")}
        assert got == {"authorization": "Bearer secret", "x-request-id": "my-id", "x-customer": None}
    stranger.put(tmp_path, "ours")
    with pytest.raises(LoadError, match="is not ready: UNAVAILABLE"):
        async with started(config):
            pass
    await fake.stop()


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda fake, _: setattr(fake, "fail_with", grpc.StatusCode.NOT_FOUND), "is not ready: NOT_FOUND"),
        (lambda _, folder: (folder / "backends.json").write_text("{}"), "no server that predictions may be"),
        (lambda _, folder: (folder / "backends.json").chmod(0o644), "chmod 600"),
    ],
)
async def test_what_cannot_be_passed_on_to_is_not_loaded(
    fake: FakeReplica,
    tmp_path: Path,
    sockets: Path,  # noqa: F811
    break_it: Callable[[FakeReplica, Path], object],
    problem: str,
) -> None:
    config = remote_config(tmp_path, sockets, RemoteModel(fake.address, "there"), signature=ECHO)
    break_it(fake, tmp_path)
    with pytest.raises(LoadError, match=problem):
        async with started(config):
            pass


async def test_a_model_that_does_not_keep_to_the_signature_is_not_loaded(
    fake: FakeReplica,
    tmp_path: Path,
    sockets: Path,  # noqa: F811
) -> None:
    other = Signature(
        (MethodSignature("predict", (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("z", "FP32", (-1,)),)),)
    )
    config = remote_config(tmp_path, sockets, RemoteModel(fake.address, "there"), signature=other)
    with pytest.raises(LoadError, match="output 'z' of method 'predict'"):
        async with started(config):
            pass
