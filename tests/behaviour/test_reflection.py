"""Clients that know no contract find every service on the gateway's one port, and call it with JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.framework.reflection import VERSIONS, Reflected
from tests.framework.stack import Processes

# One call of each service, and what its answer has.
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "modelyard.api.catalog.v1.CatalogService": ("GetLimits", {}, "limits"),
    "modelyard.api.artifact.v1.ArtifactService": ("GetStorageStatistics", {}, "statistics"),
    "modelyard.api.governance.v1.GovernanceService": ("GetCaller", {}, "principal"),
    "modelyard.api.inference.v1.InferenceService": ("ListDeployments", {"filter": "name = 'none'"}, ""),
    "inference.GRPCInferenceService": ("ServerMetadata", {}, "name"),
    "modelyard.api.oip.v2.GRPCInferenceService": ("ServerReady", {}, "ready"),
    "grpc.health.v1.Health": ("Check", {}, "status"),
}
REST = "modelyard.api.oip.v2.RestInferenceService"
"""Serves deployments alone, and there is none."""


async def token_of_admin(processes: Processes) -> str:
    async with processes.admin() as admin:
        return f"Bearer {await admin.access_token()}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_service_is_listed_described_and_called(processes: Processes, version: str) -> None:
    metadata = [("authorization", await token_of_admin(processes))]
    async with grpc.aio.insecure_channel(processes.target) as channel:
        reflected = Reflected(channel, metadata, version)
        services = await reflected.services()
        assert services == {
            *CALLS, REST, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        for service in services:
            assert (await reflected.describe(service)).methods
        for service, (method, request, expected) in CALLS.items():
            answer = await reflected.call(f"{service}/{method}", request)
            assert expected in answer or not expected
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected.call(f"{REST}/Describe", {"model_name": "none.at.all"})
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        (info,) = await reflected.details(caught.value)
        assert info["reason"] == "RESOURCE_NOT_FOUND"


async def test_buf_curl_calls_every_service(processes: Processes) -> None:
    header = f"authorization: {await token_of_admin(processes)}"

    async def buf_curl(service: str) -> Any:
        method, request, _ = CALLS[service]
        program = str(Path(sys.executable).with_name("buf"))
        url = f"http://{processes.target}/{service}/{method}"
        options = ("--protocol", "grpc", "--reflect-header", header, "-H", header, "-d", json.dumps(request))
        process = await asyncio.create_subprocess_exec(
            program, "curl", *options, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    for service, (_, _, expected) in CALLS.items():
        assert expected in await buf_curl(service) or not expected
