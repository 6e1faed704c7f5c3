"""A real Envoy configured by the gateway's own code, with stand-ins for replicas and services behind it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard_gateway import envoy
from modelyard_gateway.admin import Admin, EnvoyUnreachableError
from modelyard_gateway.apply import Applier
from modelyard_gateway.render import render
from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.table import (
    UNLIMITED,
    Desired,
    Limits,
    Predictions,
    Route,
    RouteTable,
    SigningKey,
    SigningKeys,
    Target,
)
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.auth import Principal
from tests.conformance.fake_replica import FakeReplica
from tests.framework.tokens import ISSUER, Issuer
from tests.framework.waiting import eventually

ADA = Principal("0198-ada", "ada", "user")
BOB = Principal("0198-bob", "bob", "user")
INFER = "/inference.GRPCInferenceService/ModelInfer"
OWN_INFER = "/modelyard.api.oip.v2.GRPCInferenceService/ModelInfer"


def route(
    name: str,
    *targets: tuple[str, int, Sequence[str]],
    max_bytes: int = 2**20,
    sticky_header: str = "",
    timeout: float = 10.0,
    limits: Limits = UNLIMITED,
    private: bool = False,
    idle: str = "",
) -> Route:
    """A route of a deployment; each target is group, weight, addresses, and their versions are 1, 2 and so on."""
    chain = (Link(ResourceType.DEPLOYMENT, f"id-{name}", name), SYSTEM)
    made = tuple(
        Target(group, f"{name}/{number}", weight, tuple(addresses))
        for number, (group, weight, addresses) in enumerate(targets, start=1)
    )
    return Route(chain, made, max_bytes, timeout, sticky_header, limits=limits, idle=idle, private=private)


def signing_keys(*issuers: Issuer) -> SigningKeys:
    """The public keys of issuers."""
    keys = []
    for issuer in issuers:
        jwk = json.loads(_jwk(issuer))
        keys.append(SigningKey(issuer.kid, jwk["x"], jwk["y"]))
    return SigningKeys(ISSUER, tuple(keys))


def _jwk(issuer: Issuer) -> str:
    from jwt.algorithms import ECAlgorithm

    return str(ECAlgorithm.to_jwk(issuer.key.public_key()))


def start_program(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program, to be ended by the caller."""
    return subprocess.Popen(command, **options)


class GatewayStack:
    """One Envoy, its files, and a client of it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        services = ("catalog", "artifact", "governance", "inference")
        addresses = {f"{service}_address": f"unix:{folder}/{service}.sock" for service in services}
        (folder / "token").write_text("secret")
        self.settings = GatewaySettings(
            **{
                "listen": "127.0.0.1:0",
                "token_file": folder / "token",
                "envoy_directory": folder / "envoy",
                "envoy_concurrency": 1,
                "max_request_bytes": 4 * 2**20,
                **addresses,
                **settings,
            }
        )
        self.admin = Admin(self.settings.admin_socket)
        self.applier = Applier(self.settings, self.admin)
        self.issuer = Issuer()
        self.port = 0
        self.version = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._replicas: list[FakeReplica] = []

    def start_envoy(self) -> None:
        self.applier.prepare()
        with (self.folder / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(envoy.command(self.settings), stdout=log, stderr=log)

    def kill_envoy(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    @property
    def process_id(self) -> int:
        """Process id of Envoy; 0 before it was started."""
        return self._process.pid if self._process else 0

    async def wait_for_admin(self) -> None:

        async def answers() -> bool:
            with contextlib.suppress(EnvoyUnreachableError):
                await self.admin.state()
                return True
            return False

        await eventually(answers)

    async def apply(
        self, routes: Sequence[Route], allowed: Mapping[str, Sequence[str]] | None = None
    ) -> bool:
        """Serve these routes; `allowed` maps a deployment's name to ids, by default Ada may everything.

        Returns whether clusters are left that nothing leads to.
        """
        self.version += 1
        given = {item.name: (ADA.id,) for item in routes} if allowed is None else allowed
        ids = {f"id-{name}": tuple(principals) for name, principals in given.items()}
        predictions = Predictions(RouteTable(self.version, tuple(routes)), ids)
        left = await self.applier.apply(
            render(self.settings, Desired(signing_keys(self.issuer), predictions))
        )
        self.port = await self.admin.listen_port()
        return left

    async def healthy(self, *groups: str) -> None:
        """Wait until Envoy would send predictions to these groups."""

        async def are_healthy() -> bool:
            found = await self.admin.healthy_groups()
            return found is not None and set(groups) <= found

        await eventually(are_healthy)

    async def replica(self, name: str) -> FakeReplica:
        made = await FakeReplica(self.folder / f"{name}.sock", name).start()
        self._replicas.append(made)
        return made

    def channel(self) -> grpc.aio.Channel:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    def authorization(self, principal: Principal = ADA) -> tuple[str, str]:
        return ("authorization", f"Bearer {self.issuer.token(principal)}")

    async def infer(
        self,
        name: str,
        principal: Principal | None = ADA,
        *,
        header: str = "",
        path: str = INFER,
        size: int = 16,
        version: str = "",
        extra: Mapping[str, str] | None = None,
    ) -> oip.ModelInferResponse:
        """Predict over a connection of its own."""
        async with self.channel() as channel:
            return await self.infer_on(
                channel, name, principal, header=header, path=path, size=size, version=version, extra=extra
            )

    async def infer_on(
        self,
        channel: grpc.aio.Channel,
        name: str,
        principal: Principal | None = ADA,
        *,
        header: str = "",
        path: str = INFER,
        size: int = 16,
        version: str = "",
        extra: Mapping[str, str] | None = None,
    ) -> oip.ModelInferResponse:
        metadata = [self.authorization(principal)] if principal else []
        metadata += [("modelyard-deployment", header)] if header else []
        metadata += list((extra or {}).items())
        call = channel.unary_unary(
            path,
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelInferResponse.FromString,
        )
        tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[size])
        request = oip.ModelInferRequest(
            model_name=name, model_version=version, id="7", inputs=[tensor], raw_input_contents=[bytes(size)]
        )
        response: oip.ModelInferResponse = await call(request, metadata=metadata, timeout=60)
        return response

    async def close(self) -> None:
        self.kill_envoy()
        for replica in self._replicas:
            await replica.stop()

    @property
    def log(self) -> str:
        return (self.folder / "envoy.log").read_text(errors="replace")


@asynccontextmanager
async def gateway_stack(**settings: Any) -> AsyncIterator[GatewayStack]:
    """Run an Envoy within this block; nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="my-gw-") as folder:
        stack = GatewayStack(Path(folder), **settings)
        stack.start_envoy()
        try:
            await stack.wait_for_admin()
            yield stack
            assert "script log" not in stack.log, stack.log
        finally:
            await stack.close()
