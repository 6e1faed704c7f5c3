"""Predictions through the gateway: by every kind of client, and everything that can be wrong with one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc as triton

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard.types import Prediction
from modelyard_kit.auth import Principal
from tests.framework.deployed import (
    ROWS,
    Deployed,
    deployed,
    deployed_for_module,
    estimators,
    load,
    over_one_stream,
    predictor,
)
from tests.framework.stack import Processes
from tests.framework.tokens import Issuer
from tests.framework.waiting import eventually

LIMIT = 64 * 2**20


@pytest.fixture
async def admin(processes: Processes) -> AsyncIterator[AsyncClient]:
    async with processes.admin() as client:
        yield client


@pytest.fixture(scope="module")
def endpoint(processes: Processes) -> Iterator[Deployed]:
    """One deployment of scikit-learn's for all stories that change nothing about it."""
    with deployed_for_module(processes, models=estimators()) as one:
        yield one


def request_for(endpoint: Deployed, **changes: Any) -> oip.ModelInferRequest:
    """A right request, with one thing changed."""
    given: dict[str, Any] = {
        "model_name": endpoint.name,
        "name": "input",
        "datatype": "FP64",
        "shape": [2, 4],
        "raw": ROWS[:2].tobytes(),
        "outputs": [],
        **changes,
    }
    request = oip.ModelInferRequest(model_name=given["model_name"])
    request.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
    request.raw_input_contents.append(given["raw"])
    for output in given["outputs"]:
        request.outputs.add(name=output)
    return request


async def test_every_client_gets_the_answer_of_the_model_and_who_gave_it(
    processes: Processes, admin: AsyncClient, endpoint: Deployed
) -> None:
    expected = endpoint.expected(1, ROWS)
    version = await admin.versions.get(f"{endpoint.name}/1")
    token = await admin.access_token()

    ours = await admin.predict(endpoint.name, ROWS, outputs=["output"])
    assert ours.output.tolist() == expected
    assert (ours.model, ours.model_version, ours.artifact_digest) == (
        endpoint.name,
        1,
        version.artifact_digest,
    )

    async with grpc.aio.insecure_channel(processes.target) as channel:
        request = request_for(endpoint, shape=list(ROWS.shape), raw=ROWS.tobytes(), outputs=["output"])
        answer = await GRPCInferenceServiceStub(channel).ModelInfer(
            request, metadata=(("authorization", f"Bearer {token}"),)
        )
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == expected
    assert answer.parameters["modelyard_artifact"].string_param == version.artifact_digest

    tensor = triton.InferInput("input", list(ROWS.shape), "FP64").set_data_from_numpy(ROWS)
    with triton.InferenceServerClient(processes.target) as client:
        headers = {"authorization": f"Bearer {token}"}
        assert client.is_model_ready(endpoint.name, headers=headers)
        assert client.infer(endpoint.name, [tensor], headers=headers).as_numpy("output").tolist() == expected

    body = {
        "inputs": [{"name": "input", "datatype": "FP64", "shape": list(ROWS.shape), "data": ROWS.tolist()}]
    }
    status, rest = post(processes, endpoint, token, body)
    assert (status, rest["outputs"][0]["data"], rest["model_version"]) == (200, expected, "1")


def post(processes: Processes, endpoint: Deployed, token: str, body: Any) -> tuple[int, Any]:
    """Predict by REST; returns status and body."""
    request = urllib.request.Request(
        f"http://{processes.target}/v2/models/{endpoint.name}/infer",
        data=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "inptu"}, "inptu"),
        ({"shape": [2, 3]}, "input"),
        ({"shape": [8]}, "unexpected shape for input 'input'"),
        ({"shape": [-1, 4]}, "input"),
        ({"shape": [2**40, 4]}, "input"),
        ({"datatype": "FP32"}, "data-type is 'FP32'"),
        ({"datatype": "FP65"}, "FP65"),
        ({"raw": b""}, "byte size mismatch"),
        ({"raw": ROWS[:2].tobytes()[:-1]}, "byte size mismatch"),
        ({"raw": ROWS[:2].tobytes() + b"x"}, "byte size mismatch"),
        ({"outputs": ["nonsense"]}, "nonsense"),
    ],
)
async def test_what_does_not_fit_the_model_is_refused_by_name(
    processes: Processes, admin: AsyncClient, endpoint: Deployed, changes: dict[str, Any], says: str
) -> None:
    async with grpc.aio.insecure_channel(processes.target) as channel:
        metadata = (("authorization", f"Bearer {await admin.access_token()}"),)
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request_for(endpoint, **changes), metadata=metadata, timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
        assert says in str(caught.value.details())
        await stub.ModelInfer(request_for(endpoint), metadata=metadata, timeout=30)  # still serving


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        ({"inputs": []}, "input"),
        ({"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3]}]}, "input"),
        (
            {"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3, "x"]}]},
            "input",
        ),
    ],
)
async def test_rest_bodies_that_do_not_fit_are_refused(
    processes: Processes, admin: AsyncClient, endpoint: Deployed, body: Any, says: str
) -> None:
    status, answer = post(processes, endpoint, await admin.access_token(), body)
    assert status == 400
    assert says in answer["error"]


@pytest.mark.parametrize("name", ["nobody.knows.it", "x", "", "a.b.c/1", "ü.b.c"])
async def test_unknown_deployments_are_not_found(processes: Processes, admin: AsyncClient, name: str) -> None:
    async with grpc.aio.insecure_channel(processes.target) as channel:
        request = oip.ModelInferRequest(model_name=name)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await GRPCInferenceServiceStub(channel).ModelInfer(
                request, metadata=(("authorization", f"Bearer {await admin.access_token()}"),), timeout=30
            )
    assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), caught.value


async def test_a_body_over_the_limit_is_refused_and_the_next_one_answered(
    admin: AsyncClient, endpoint: Deployed
) -> None:
    rows = np.zeros((LIMIT // 32 + 1, 4))
    with pytest.raises(errors.RequestTooLarge):
        await admin.predict(endpoint.name, rows, timeout=60)
    assert (await admin.predict(endpoint.name, ROWS[:1])).model_version == 1


FORGERIES: dict[str, tuple[Callable[[Issuer], str], grpc.StatusCode]] = {
    "none": (lambda _issuer: "", grpc.StatusCode.UNAUTHENTICATED),
    "nonsense": (lambda _issuer: "Bearer nonsense", grpc.StatusCode.UNAUTHENTICATED),
    "foreign key": (lambda issuer: f"Bearer {issuer.token(ADMIN)}", grpc.StatusCode.UNAUTHENTICATED),
    "expired": (
        lambda issuer: f"Bearer {issuer.token(ADMIN, life=timedelta(minutes=-5))}",
        grpc.StatusCode.UNAUTHENTICATED,
    ),
}
ADMIN = Principal("1", "admin", "user")


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_nothing_is_predicted_without_a_good_token(
    processes: Processes, endpoint: Deployed, forgery: str
) -> None:
    make, code = FORGERIES[forgery]
    header = make(Issuer())
    metadata = (("authorization", header),) if header else ()
    async with grpc.aio.insecure_channel(processes.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await GRPCInferenceServiceStub(channel).ModelInfer(
                request_for(endpoint), metadata=metadata, timeout=30
            )
    assert caught.value.code() is code


async def test_execute_decides_who_may_predict_within_a_moment(
    processes: Processes, admin: AsyncClient, endpoint: Deployed
) -> None:
    name = endpoint.name
    catalog = name.partition(".")[0]

    async def may(client: AsyncClient) -> bool:
        try:
            await client.predict(name, {"input": ROWS[:1]})
        except errors.PermissionDenied:
            return False
        return True

    async def may_not(client: AsyncClient) -> bool:
        return not await may(client)

    async with processes.user() as user:
        assert not await may(user.client)
        for privilege in ("USE_CATALOG", "USE_SCHEMA"):
            await admin.grants.create(user.name, privilege, catalog)
        await admin.grants.create(user.name, "EXECUTE", name, resource_type="DEPLOYMENT")
        await eventually(lambda: may(user.client))
        with pytest.raises(errors.PermissionDenied):
            await user.client.versions.get(name)  # may predict, may not look inside
        await admin.grants.create(user.name, "EXECUTE", catalog, effect="DENY")
        await eventually(lambda: may_not(user.client))


async def test_a_moved_alias_switches_the_answers_and_fails_none(
    processes: Processes, admin: AsyncClient
) -> None:
    async with (
        deployed(processes, replicas=2) as endpoint,
        over_one_stream(admin, endpoint.name, ROWS[:1]) as ask,
        load(predictor(admin, endpoint)) as seen,
        load(checked(ask, endpoint), callers=1) as streamed,
    ):
        for champion in (1, 2, 1):
            await admin.aliases.set(endpoint.name, {"champion": champion})
            await seen.more(50, version=champion, timeout=120)
            await streamed.more(50, version=champion, timeout=120)
    assert seen.failures == streamed.failures == []


def checked(ask: Callable[[], Awaitable[Prediction]], endpoint: Deployed) -> Callable[[], Awaitable[int]]:
    async def predict() -> int:
        answer = await ask()
        assert answer.output.tolist() == endpoint.expected(answer.model_version, ROWS[:1])
        return answer.model_version

    return predict


async def test_a_deployment_that_cannot_load_fails_and_says_why(
    processes: Processes, admin: AsyncClient, tmp_path: Any
) -> None:
    async with deployed(processes) as endpoint:
        good = await admin.versions.get(f"{endpoint.name}/1")
        (tmp_path / "model.onnx").write_bytes(b"this is no model")
        artifact = await admin.artifacts.upload(endpoint.name, tmp_path)
        await admin.versions.create(endpoint.name, artifact.digest, runtime="onnx", signature=good.signature)
        await admin.deployments.update(endpoint.name, targets=f"{endpoint.name}/3")
        with pytest.raises(errors.DeploymentFailed, match=r"model\.onnx cannot be loaded"):
            await admin.deployments.wait(endpoint.name, timeout=120)
        assert (await admin.predict(endpoint.name, ROWS[:1])).model_version == 1  # the old one still answers
