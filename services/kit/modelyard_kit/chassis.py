"""Starts a service, serves it, and stops it cleanly.

    settings -> logs, traces -> migrations -> database, peers -> the service's own parts -> server, background tasks

A clean end: health says NOT_SERVING, calls in flight get `drain_seconds`, background tasks are cancelled, connections are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog
import uvloop
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from modelyard.api.governance.v1.governance_service_pb2 import RecordEventsRequest
from modelyard_kit import faults, garbage, migrate, outbox, permissions, telemetry
from modelyard_kit.auth import TokenVerifier
from modelyard_kit.authorization import AccessTable
from modelyard_kit.channels import SERVER_OPTIONS
from modelyard_kit.clock import Clock, utc_now
from modelyard_kit.config import Settings, load
from modelyard_kit.db import Database
from modelyard_kit.denials import Denials
from modelyard_kit.grants import Grants
from modelyard_kit.interceptors import CallChain
from modelyard_kit.outbox import Event, Relay
from modelyard_kit.peers import Peers
from modelyard_kit.protos import event_to_proto
from modelyard_kit.reflection import add_reflection

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Chassis:
    """What the kit gives to a service."""

    settings: Any
    db: Database
    peers: Peers
    grants: Grants
    clock: Clock
    log: Any


@dataclass(frozen=True)
class Service:
    """What a service gives to the kit.

    `verifier` and `event_sink` are for governance, which issues the tokens and takes the events: for every other service the kit
    verifies with governance's keys and delivers to governance.
    """

    name: str
    full_name: str
    register: Callable[[grpc.aio.Server], None]
    access: AccessTable
    background: tuple[Callable[[], Awaitable[None]], ...] = ()
    verifier: TokenVerifier | None = None
    event_sink: Callable[[Sequence[Event]], Awaitable[None]] | None = None


Build = Callable[[Chassis], AbstractAsyncContextManager[Service]]


def main(settings_type: type[S], build: Build, *, package: str) -> None:
    """Run a service until SIGTERM or SIGINT; the body of every `__main__`."""
    settings = load(settings_type)
    name = package.removeprefix("modelyard_")
    telemetry.configure_logging(settings, name)
    provider = telemetry.start(settings, name)
    try:
        uvloop.run(_run(settings, build, package))
    finally:
        if provider:
            provider.shutdown()


async def _run(settings: Settings, build: Build, package: str) -> None:
    stop, starting = asyncio.Event(), asyncio.current_task()

    def end() -> None:
        stop.set()
        if starting:  # may take long, as it waits for another process to end
            starting.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        async with running(settings, build, package):
            starting = None
            garbage.settle()
            await stop.wait()
    except asyncio.CancelledError:
        if starting is None or not stop.is_set():
            raise


@asynccontextmanager
async def running(settings: Settings, build: Build, package: str) -> AsyncIterator[None]:
    """Serve within this block; tests run several services in one process this way.

    Raises:
        ExceptionGroup: a background task of the service failed.
    """
    faults.configure(settings.failpoints)
    await migrate.upgrade(settings.database, package)
    database = Database.connect(settings.database)
    if settings.otlp_endpoint:
        telemetry.trace_sql(database.engine)
    peers = Peers(settings)
    grants = Grants(bound=settings.permission_bound_seconds)
    chassis = Chassis(settings, database, peers, grants, utc_now, structlog.get_logger())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        stack.push_async_callback(peers.close)
        service = await stack.enter_async_context(build(chassis))
        denials = Denials(database, service.name, utc_now)
        stack.push_async_callback(denials.write, everything=True)
        relay = Relay(database, service.event_sink or governance_sink(peers))
        background = [relay.run, denials.run, *service.background]
        verifier = service.verifier
        if verifier is None:
            keys = permissions.RemoteKeys(peers)
            verifier = TokenVerifier(settings.issuer, keys)
            background += [lambda: permissions.watch(peers, grants), keys.follow]
        await stack.enter_async_context(_background(background))
        await stack.enter_async_context(_serving(service, settings, verifier, grants, denials))
        yield


def governance_sink(peers: Peers) -> outbox.Sink:
    """Return a sink that delivers events to the audit chain of governance."""

    async def deliver(events: Sequence[Event]) -> None:
        request = RecordEventsRequest(events=map(event_to_proto, events))
        await peers.call(peers.governance.RecordEvents, request, timeout=10.0)

    return deliver


@asynccontextmanager
async def _background(tasks: Sequence[Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Run endless tasks beside the block. One that fails ends the process: the supervisor starts it afresh."""

    async def run(task: Callable[[], Awaitable[None]]) -> None:
        await task()

    async with asyncio.TaskGroup() as group:
        running_tasks = [group.create_task(run(task)) for task in tasks]
        try:
            yield
        finally:
            for task in running_tasks:
                task.cancel()


@asynccontextmanager
async def _serving(
    service: Service, settings: Settings, verifier: TokenVerifier, grants: Grants, denials: Denials
) -> AsyncIterator[grpc.aio.Server]:
    chain = CallChain(service.full_name, service.access, verifier, grants, refused=denials.note)
    server = grpc.aio.server(interceptors=[chain], options=SERVER_OPTIONS)
    service.register(server)
    check_access(service)
    status = health.aio.HealthServicer()
    await _set_health(status, service, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    add_reflection(server, (service.full_name, health.SERVICE_NAME), [_contract(service).file])
    _bind(server, settings)
    await server.start()
    log = structlog.get_logger()
    log.info("serving", address=settings.listen)
    try:
        async with _background([lambda: _serve_once_known(status, service, grants)]):
            yield server
    finally:
        await status.enter_graceful_shutdown()
        chain.end_watches()
        await server.stop(settings.drain_seconds)
        log.info("stopped")


async def _serve_once_known(status: health.aio.HealthServicer, service: Service, grants: Grants) -> None:
    """Say that calls are served when it can be decided whose are."""
    await grants.received()
    await _set_health(status, service, health_pb2.HealthCheckResponse.SERVING)


async def _set_health(status: health.aio.HealthServicer, service: Service, value: int) -> None:
    for name in ("", service.full_name):
        await status.set(name, value)


def check_access(service: Service) -> None:
    """Refuse to start when the access table and the contract do not name the same RPCs.

    Raises:
        RuntimeError: an RPC has no rule, or a rule has no RPC.
    """
    contract = {method.name for method in _contract(service).methods}
    if contract != set(service.access):
        unruled, unknown = sorted(contract - set(service.access)), sorted(set(service.access) - contract)
        raise RuntimeError(
            f"access table of {service.name}: RPCs without a rule {unruled}, rules without an RPC {unknown}"
        )


def _contract(service: Service) -> Any:
    """Return the descriptor of a service."""
    return descriptor_pool.Default().FindServiceByName(service.full_name)


def _bind(server: grpc.aio.Server, settings: Settings) -> None:
    if settings.listen.startswith("unix:"):
        path = Path(settings.listen.removeprefix("unix:"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        server.add_insecure_port(settings.listen)
        return
    try:
        if settings.tls_certificate and settings.tls_key:
            pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
            server.add_secure_port(settings.listen, grpc.ssl_server_credentials([pair]))
        else:
            server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise SystemExit(
            f"cannot listen on {settings.listen}: another program has that port; stop it or set MODELYARD_LISTEN"
        ) from error
