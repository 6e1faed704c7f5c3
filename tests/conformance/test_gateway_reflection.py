"""Clients without contracts at the gateway's port, with TLS and with certificates on both sides; tests/behaviour has the rest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.conformance.whole_gateway import IRIS, Gateway, whole_gateway
from tests.framework.certificates import Pair, pair
from tests.framework.reflection import VERSIONS, Reflected

SERVER, ADA = pair("localhost", 1), pair("ada", 2)


@dataclass
class Door:
    """A gateway, and what a client needs to enter."""

    gateway: Gateway
    folder: Path
    client: Pair | None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gateway.stack.port}"

    @property
    def token(self) -> tuple[str, str]:
        return self.gateway.stack.authorization()

    def channel(self) -> grpc.aio.Channel:
        own = (self.client.key, self.client.certificate) if self.client else (None, None)
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(SERVER.certificate, *own))

    async def buf_curl(self, path: str, *arguments: str, show: bool = True) -> tuple[int | None, str]:
        """Run it; returns its exit code, and what it wrote."""
        command = [str(Path(sys.executable).with_name("buf")), "curl", "--protocol", "grpc"]
        header = ": ".join(self.token)
        command += ["--reflect-header", header, "-H", header, "--cacert", str(self.folder / "server.crt")]
        if self.client and show:
            command += ["--cert", str(self.folder / "ada.crt"), "--key", str(self.folder / "ada.key")]
        url = f"https://{self.address}{path}"
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        return process.returncode, (err if process.returncode else out).decode()


@pytest.fixture(params=["tls", "mtls"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    certificate, key = SERVER.put(tmp_path, "server")
    ca, _ = ADA.put(tmp_path, "ada")
    settings = {"tls_certificate": certificate, "tls_key": key}
    client = ADA if request.param == "mtls" else None
    async with whole_gateway(**settings, tls_client_ca=ca if client else None) as gateway:
        yield Door(gateway, tmp_path, client)


async def test_a_client_without_contracts_lists_and_calls(door: Door) -> None:
    await _buf_curl(door)
    await _reflected(door)


async def _buf_curl(door: Door) -> None:
    code, listed = await door.buf_curl("", "--list-methods")
    assert code == 0, listed
    assert {
        "inference.GRPCInferenceService/ModelInfer",
        "modelyard.api.catalog.v1.CatalogService/GetModel",
        "modelyard.api.artifact.v1.ArtifactService/ReadFile",
        "modelyard.api.governance.v1.GovernanceService/CreateGrant",
        "modelyard.api.inference.v1.InferenceService/CreateDeployment",
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    } <= set(listed.split())
    code, called = await door.buf_curl(
        "/modelyard.api.catalog.v1.CatalogService/GetCatalog", "-d", '{"name": "prod"}'
    )
    assert code == 0, called
    assert json.loads(called)["catalog"]["name"] == "prod"
    code, answer = await door.buf_curl(
        "/inference.GRPCInferenceService/ModelInfer", "-d", json.dumps({"model_name": IRIS})
    )
    assert code == 0, answer
    assert json.loads(answer)["modelVersion"] == "one"
    if door.client:
        code, _ = await door.buf_curl("", "--list-methods", show=False)
        assert code != 0


async def _reflected(door: Door) -> None:
    for version in VERSIONS:
        async with door.channel() as channel:
            reflected = Reflected(channel, [door.token], version)
            assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= await reflected.services()
            for symbol in ("inference.GRPCInferenceService.ModelInfer", "inference.ModelInferRequest"):
                assert await reflected.file_of(symbol) == "inference/grpc_inference.proto"
            answer = await reflected.call(
                "modelyard.api.catalog.v1.CatalogService/GetCatalog", {"name": "prod"}
            )
            assert answer["catalog"]["name"] == "prod"
            answer = await reflected.call("inference.GRPCInferenceService/ModelInfer", {"model_name": IRIS})
            assert answer["model_version"] == "one"
