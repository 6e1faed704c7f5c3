"""Which processes make up a suite, in which order, with which settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard._cache import SIZE_VARIABLE, cache_folder
from modelyard.api.governance.v1.governance_service_pb2 import GetJwksRequest
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard_kit import PREFIX
from modelyard_suite.home import Home
from modelyard_suite.postgres import EmbeddedPostgres
from modelyard_suite.supervisor import ProcessSpec

SERVICES = ("governance", "catalog", "artifact", "inference")
GATEWAY = "gateway"
SCRAPED = (*SERVICES, GATEWAY)
"""What answers Prometheus, in the order of ports."""
TAKEN = (
    *("OTLP_ENDPOINT", "LOG_LEVEL", "LOG_FORMAT"),
    *("ALLOW_MODEL_CODE", "BUILD_ENVIRONMENTS", "BUILD_TIMEOUT_SECONDS"),
    *("REQUIRE_SIGNATURE", "START_TIMEOUT_SECONDS"),
    *("PREDICTION_LOGS", "PREDICTION_LOGS_SECONDS", "PREDICTION_LOGS_DAYS", "S3_ENDPOINT"),
    *("CORS_ORIGINS", "PRIVATE_LISTEN", "MAX_REQUEST_BYTES"),
    *("BLOBS", "S3_PUBLIC_ENDPOINT", "S3_DIRECT", "DIRECT_URL_MINUTES"),
    *("UPLOAD_EXPIRY_HOURS", "GARBAGE_GRACE_HOURS"),
    *("AUDIT_RETENTION_DAYS", "AUDIT_CHECKPOINT_SECONDS"),
    *("WEBHOOK_PRIVATE_TARGETS", "WEBHOOK_TIMEOUT_SECONDS"),
)
"""Settings that a suite takes from its user's environment, without the prefix; docs/deploy.md names them."""
_OF_CLIENTS = (
    *("HOME", "CONTEXT", "TARGET", "TOKEN", "CACHE", "CACHE_SIZE", "KEY_PASSWORD"),
    *("CA_CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
)
"""What the command line reads, and services do not."""
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """What a user can choose.

    Args:
        listen: address of the gateway, `host:port`.
        metrics_port: the first of the ports on loopback where services and gateway answer Prometheus, in the order of `SCRAPED`; 0: none.
        extra: further settings for every process, without the prefix; for tests and for the curious.
    """

    listen: str = "127.0.0.1:8080"
    metrics_port: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)


def metrics_addresses(options: Options) -> dict[str, str]:
    """Return where each service and the gateway answer Prometheus; nothing if none does."""
    if not options.metrics_port:
        return {}
    return {name: f"127.0.0.1:{options.metrics_port + i}" for i, name in enumerate(SCRAPED)}


def stages(home: Home, options: Options) -> list[list[ProcessSpec]]:
    """Return the processes in the order in which they start."""
    postgres = EmbeddedPostgres(home.postgres, home.database_sockets)

    async def make_databases() -> None:
        for name in SERVICES:
            await postgres.ensure_database(f"modelyard_{name}")

    database = ProcessSpec(
        name="postgres",
        command=postgres.command(),
        environment=_inherited(),
        is_ready=postgres.is_ready,
        when_ready=make_databases,
        user=postgres.user,
        stop_signal=signal.SIGINT,  # "fast" shutdown: end sessions, then stop cleanly
    )
    services = [_service(home, postgres, options, name) for name in SERVICES]
    return [[database], services, _gateway(home, options)]


def _service(home: Home, postgres: EmbeddedPostgres, options: Options, name: str) -> ProcessSpec:
    address = home.socket(name)
    settings = {
        **_common(home, name),
        "listen": address,
        "database": postgres.dsn(f"modelyard_{name}"),
        "metrics_listen": metrics_addresses(options).get(name, ""),
        **_particular(home, name),
        **options.extra,
    }
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-m", f"modelyard_{name}"],
        environment=_environment(settings),
        is_ready=lambda: _is_serving(address),
        stop_seconds=60.0 if name == "inference" else 20.0,
    )


def _particular(home: Home, name: str) -> Mapping[str, str]:
    return {
        "governance": {
            "signing_key_file": str(home.secrets / "signing_key.pem"),
            "bootstrap_directory": str(home.secrets),
        },
        "catalog": {},
        "artifact": {
            "blobs": os.environ.get(f"{PREFIX}BLOBS") or home.blobs.as_uri(),
            "staging": str(home.staging),
        },
        "inference": {
            "run_directory": str(home.run / "r"),
            "cache_directory": str(home.cache),
            "blob_cache_directory": str(cache_folder()),
            "backends_file": str(home.secrets / "backends.json"),
            "stop_replicas_on_exit": "true",
        },
    }[name]


def _gateway(home: Home, options: Options) -> list[ProcessSpec]:
    settings = {
        **_common(home, GATEWAY),
        "listen": options.listen,
        "metrics_listen": metrics_addresses(options).get(GATEWAY, ""),
        "envoy_directory": str(home.envoy),
        "access_log": str(home.logs / "access.log"),
        **options.extra,
    }
    environment = _environment(settings)

    async def always() -> bool:
        return True

    return [
        ProcessSpec(GATEWAY, [sys.executable, "-m", "modelyard_gateway"], environment, is_ready=always),
        ProcessSpec(
            "envoy",
            [sys.executable, "-m", "modelyard_gateway", "envoy"],
            environment,
            is_ready=_reachable(options.listen),
        ),
    ]


def _common(home: Home, name: str) -> dict[str, str]:
    addresses = {f"{service}_address": home.socket(service) for service in SERVICES}
    return {"token_file": str(home.token_file(name)), **addresses}


def _inherited() -> dict[str, str]:
    """Return the environment without settings of Modelyard: those come from the plan, but for the user's own."""
    kept = {SIZE_VARIABLE, *(f"{PREFIX}{name}" for name in TAKEN)}
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name in kept}


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    ours = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
    return {**_inherited(), "PYTHONUNBUFFERED": "1", **ours}


def ignored() -> list[str]:
    """Return the settings in the environment that a suite does not take: it has values of its own for them."""
    known = {f"{PREFIX}{name}" for name in (*TAKEN, *_OF_CLIENTS)}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


async def _is_serving(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _reachable(target: str) -> Callable[[], Awaitable[bool]]:
    """Return a probe that asks governance for its public keys through the gateway."""

    async def probe() -> bool:
        async with grpc.aio.insecure_channel(target) as channel:
            try:
                await GovernanceServiceStub(channel).GetJwks(GetJwksRequest(), timeout=_PROBE_SECONDS)
            except grpc.aio.AioRpcError:
                return False
        return True

    return probe


def free_port() -> int:
    """Return a port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def is_port_free(listen: str) -> bool:
    """Return whether a server could listen on `host:port` now."""
    host, _, port = listen.rpartition(":")
    try:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, int(port))
    except OSError:
        return False
    server.close()
    with contextlib.suppress(OSError):
        await server.wait_closed()
    return True
