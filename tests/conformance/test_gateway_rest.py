"""The REST form of the Open Inference Protocol through a real Envoy."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from tests.conformance.gateway_stack import ADA, BOB, GatewayStack, gateway_stack, route

IRIS, OTHER = "prod.ml.iris", "prod.ml.other"
BODY: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1.5, 2.5]]}]}


@pytest.fixture
async def serving() -> AsyncIterator[GatewayStack]:
    """Ada may use `iris`, Bob may use `other`."""
    async with gateway_stack() as stack:
        iris, other = await stack.replica("iris"), await stack.replica("other")
        routes = [route(IRIS, ("g-iris", 1, [iris.address])), route(OTHER, ("g-other", 1, [other.address]))]
        await stack.apply(routes, {IRIS: [ADA.id], OTHER: [BOB.id]})
        await stack.healthy("g-iris", "g-other")
        yield stack


async def ask(
    stack: GatewayStack, method: str, path: str, *, token: bool = True, body: Any = None, header: str = ""
) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of one request."""
    headers = {"modelyard-deployment": header} if header else {}
    if token:
        headers["authorization"] = stack.authorization()[1]
    if body is not None:
        headers["content-type"] = "application/json"
    url = f"http://127.0.0.1:{stack.port}{path}"
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with session.request(method, url, data=data, headers=headers) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, json.loads(await response.text())


@pytest.mark.parametrize(("infix", "version"), [("", ""), ("/versions/1", "1")])
async def test_infer(serving: GatewayStack, infix: str, version: str) -> None:
    status, answer = await ask(serving, "POST", f"/v2/models/{IRIS}{infix}/infer", body=BODY)
    assert status == 200
    assert answer["model_name"] == IRIS
    assert answer["outputs"] == BODY["inputs"]
    assert answer["asked_version"] == version


@pytest.mark.parametrize("infix", ["", "/versions/1"])
async def test_metadata_ready_and_statistics(serving: GatewayStack, infix: str) -> None:
    status, answer = await ask(serving, "GET", f"/v2/models/{IRIS}{infix}")
    assert (status, answer["platform"]) == (200, "fake")
    status, answer = await ask(serving, "GET", f"/v2/models/{IRIS}{infix}/ready")
    assert (status, answer["ready"]) == (200, True)
    status, answer = await ask(serving, "GET", f"/v2/models/{IRIS}{infix}/stats")
    assert (status, answer["model_stats"], answer["asked_version"]) == (200, [], infix.rpartition("/")[2])
    status, _ = await ask(serving, "GET", f"/v2/models/{OTHER}{infix}/stats")
    assert status == 403


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (f"/endpoints/{IRIS}/invocations", "invocations"),
        (f"/serving-endpoints/{IRIS}/invocations", "invocations"),
        (f"/endpoints/{IRIS}/predict", "predict"),
    ],
)
async def test_the_forms_of_mlflow_and_oci(serving: GatewayStack, path: str, form: str) -> None:
    body = {"instances": [[1.5, 2.5]]}
    status, answer = await ask(serving, "POST", path, body=body)
    assert (status, answer["model_name"]) == (200, IRIS)
    assert (answer["form"], answer["sent"]) == (form, body)
    for call, expected in (
        (ask(serving, "POST", path, token=False, body=body), 401),
        (ask(serving, "POST", path.replace(IRIS, OTHER), body=body), 403),
        (ask(serving, "POST", path.replace(IRIS, "prod.ml.none"), body=body), 404),
        (ask(serving, "POST", path.replace(form, "explain"), body=body), 404),
        (ask(serving, "POST", path, body={"inputs": ["x" * (2**20 + 1)]}), 413),
    ):
        status, answer = await call
        assert (status, list(answer)) == (expected, ["error"])
    serving._replicas[0].fail_with = grpc.StatusCode.INVALID_ARGUMENT
    assert await ask(serving, "POST", path, body=body) == (400, {"error": 'said "no", 50% sure'})


async def test_csv_passes_with_what_it_is(serving: GatewayStack) -> None:
    headers = dict([serving.authorization()]) | {"content-type": "text/csv; charset=utf-8"}
    url = f"http://127.0.0.1:{serving.port}/endpoints/{IRIS}/invocations"
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as session,
        session.post(url, data="a,b\n1,2\n", headers=headers) as response,
    ):
        answer = json.loads(await response.text())
    assert (answer["sent"], answer["kind"]) == ("a,b\n1,2\n", "text/csv; charset=utf-8")


async def test_the_server_answers_without_a_token(serving: GatewayStack) -> None:
    assert await ask(serving, "GET", "/v2/health/live", token=False) == (200, {"live": True})
    assert await ask(serving, "GET", "/v2/health/ready", token=False) == (200, {"ready": True})
    status, answer = await ask(serving, "GET", "/v2", token=False)
    assert (status, answer["name"], answer["extensions"]) == (200, "modelyard", ["statistics"])


async def test_refusals_have_their_status_and_an_error(serving: GatewayStack) -> None:
    infer = f"/v2/models/{IRIS}/infer"
    status, answer = await ask(serving, "POST", infer, token=False, body=BODY)
    assert (status, "no token" in answer["error"]) == (401, True)
    status, answer = await ask(serving, "POST", f"/v2/models/{OTHER}/infer", body=BODY)
    assert (status, answer) == (403, {"error": f"EXECUTE on deployment '{OTHER}' is needed"})
    status, answer = await ask(serving, "POST", "/v2/models/prod.ml.none/infer", body=BODY)
    assert (status, "prod.ml.none" in answer["error"]) == (404, True)
    status, answer = await ask(serving, "POST", infer, body={"inputs": ["x" * (2**20 + 1)]})
    assert (status, "max_request_bytes" in answer["error"]) == (413, True)
    status, answer = await ask(serving, "POST", infer, body={"inputs": ["x" * (5 * 2**20)]})
    assert (status, "larger than 4,194,304 bytes" in answer["error"]) == (413, True)  # the listener's limit
    status, answer = await ask(serving, "POST", f"/v2/models/{IRIS}/explain", body=BODY)
    assert (status, "error" in answer) == (404, True)


@pytest.mark.parametrize(
    ("code", "http"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
async def test_a_replicas_error_has_its_status_and_text(
    serving: GatewayStack, code: grpc.StatusCode, http: int
) -> None:
    serving._replicas[0].fail_with = code
    answer = await ask(serving, "POST", f"/v2/models/{IRIS}/infer", body=BODY)
    assert answer == (http, {"error": 'said "no", 50% sure'})


async def test_a_header_does_not_change_whom_the_path_names(serving: GatewayStack) -> None:
    status, _ = await ask(serving, "POST", f"/v2/models/{OTHER}/infer", body=BODY, header=IRIS)
    assert status == 403
    for name in (f"{IRIS}%2F..%2F{OTHER}", f"../models/{OTHER}", f"{IRIS}/../{OTHER}", "prod.ml.%6Fther"):
        status, _ = await ask(serving, "POST", f"/v2/models/{name}/infer", body=BODY, header=IRIS)
        assert status in (400, 403, 404), name
    assert serving._replicas[1].asked == []
