"""The control plane for clients without gRPC: JSON over HTTP, and pages in browsers, at a real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from modelyard.api.inference.v1 import inference_service_pb2
from tests.conformance.gateway_control_plane import ControlPlane
from tests.conformance.gateway_stack import INFER, GatewayStack, gateway_stack

CONSOLE = "https://console.example.com"
GET_CATALOG = "/modelyard.api.catalog.v1.CatalogService/GetCatalog"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack(cors_origins=f"{CONSOLE}, http://localhost:3000") as made:
        plane = ControlPlane(made.folder, made.issuer)
        await plane.start("catalog", "governance")
        await made.apply([])
        yield made
        await plane.stop()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Any

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)


async def ask(
    stack: GatewayStack,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: bool = True,
    headers: dict[str, str] | None = None,
) -> Answer:
    given = dict(headers or {})
    if token:
        given["authorization"] = stack.authorization()[1]
    url = f"http://127.0.0.1:{stack.port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, json=body, headers=given) as answer,
    ):
        return Answer(answer.status, await answer.text(), answer.headers)


async def test_methods_answer_json(stack: GatewayStack) -> None:
    for answer in (
        await ask(stack, "POST", "/v1/catalog/GetCatalog", {"name": "prod"}),
        await ask(stack, "GET", "/v1/catalog/GetCatalog?name=prod"),
        await ask(stack, "POST", GET_CATALOG, {"name": "prod"}),
    ):
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json == {"catalog": {"name": "prod", "owner_id": "ada"}}
    keys = await ask(stack, "GET", "/v1/governance/GetJwks", token=False)
    assert (keys.status, keys.json["issuer"]) == (200, "modelyard")


async def test_streams_answer_a_line_for_each_message(stack: GatewayStack) -> None:
    answer = await ask(stack, "POST", "/v1/catalog/WatchEvents", {"types": ["a", "b"]})
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"resume_token": "a"},
        {"resume_token": "b"},
    ]


async def test_refusals_have_their_status_and_their_reason(stack: GatewayStack) -> None:
    missing = await ask(stack, "GET", "/v1/catalog/GetCatalog?name=none")
    assert (missing.status, missing.json["code"]) == (404, 5)
    assert missing.json["message"] == "catalog 'none' does not exist"
    assert missing.json["details"][0]["reason"] == "RESOURCE_NOT_FOUND"
    anonymous = await ask(stack, "GET", "/v1/catalog/GetCatalog?name=prod", token=False)
    assert (anonymous.status, "no token" in anonymous.text) == (401, True)
    down = await ask(stack, "POST", "/v1/inference/ListDeployments", {})
    assert (down.status, "inference service" in down.text) == (503, True)
    for method, path, body in (
        ("POST", "/v1/catalog/GetNothing", {}),
        ("POST", "/v1/nobody/GetCatalog", {}),
        ("GET", "/v1/catalog/CreateCatalog", None),  # GET changes nothing
        ("POST", "/v1/artifact/UploadBlobs", {}),  # streams requests
    ):
        assert (await ask(stack, method, path, body)).status in (404, 405), path
    for body in ({"name": 1}, {"name": {}}, "prod"):
        assert (await ask(stack, "POST", "/v1/catalog/GetCatalog", body)).status == 400, body


async def test_every_method_that_streams_no_requests_has_a_path(stack: GatewayStack) -> None:
    service = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    for method in service.methods:
        answer = await ask(stack, "POST", f"/v1/inference/{method.name}", {})
        assert answer.status == 503, method.name  # it was sent on to the service, which does not run here


async def test_pages_of_allowed_origins_may_call(stack: GatewayStack) -> None:
    preflight = {
        "origin": CONSOLE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-grpc-web,modelyard-deployment",
    }
    for path in (INFER, GET_CATALOG, "/v1/catalog/GetCatalog"):
        allowed = await ask(stack, "OPTIONS", path, token=False, headers=preflight)
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == CONSOLE
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        foreign = await ask(
            stack, "OPTIONS", path, token=False, headers={**preflight, "origin": "https://evil.example"}
        )
        assert (foreign.status, foreign.headers.get("access-control-allow-origin")) == (401, None)
    page = {"origin": CONSOLE}
    answer = await ask(stack, "POST", "/v1/catalog/GetCatalog", {"name": "prod"}, headers=page)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, CONSOLE)
    assert "grpc-status" in answer.headers["access-control-expose-headers"]
    refused = await ask(stack, "GET", "/v1/catalog/GetCatalog?name=prod", token=False, headers=page)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, CONSOLE)
