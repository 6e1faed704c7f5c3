"""Puts the inference control plane together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelyard._cache import BlobCache
from modelyard.api.inference.v1.inference_service_pb2_grpc import add_InferenceServiceServicer_to_server
from modelyard_inference import scrape
from modelyard_inference.access import access_table
from modelyard_inference.activator import Activator
from modelyard_inference.admission import Admission
from modelyard_inference.artifacts import ArtifactCache
from modelyard_inference.deployments import Deployments
from modelyard_inference.environments.cache import EnvironmentCache
from modelyard_inference.followers import Followers
from modelyard_inference.launchers import Launcher
from modelyard_inference.launchers.local import LocalLauncher, RunFolderUnusable
from modelyard_inference.lineage import Lineage
from modelyard_inference.log_retention import LogRetention
from modelyard_inference.log_shipping import LogShipping
from modelyard_inference.log_switching import LogSwitching
from modelyard_inference.lookups import Lookups
from modelyard_inference.means import Means
from modelyard_inference.owners import Owners
from modelyard_inference.parquet_logs import AddressUnusable, ParquetLogs
from modelyard_inference.ports import Prober
from modelyard_inference.probe import ReplicaProber
from modelyard_inference.reconciler import Reconciler
from modelyard_inference.replica_logs import ReplicaLogs
from modelyard_inference.rollouts import Rollouts
from modelyard_inference.routes import Routes
from modelyard_inference.servicer import InferenceServicer
from modelyard_inference.shadows import Shadows
from modelyard_inference.signers import Signers
from modelyard_inference.statistics import Statistics
from modelyard_inference.steps import Steps
from modelyard_inference.steps.replicas import ReplicaDefaults
from modelyard_inference.store import InferenceStore
from modelyard_inference.upstream import PeerUpstream
from modelyard_inference.watching import Watching
from modelyard_kit.auth import Principal
from modelyard_kit.chassis import Chassis, Service
from modelyard_kit.clock import Clock
from modelyard_kit.config import Settings
from modelyard_kit.db import Database
from modelyard_kit.grants import Grants
from modelyard_kit.sole import Sole
from modelyard_kit.watches import Watches

if TYPE_CHECKING:
    from modelyard_inference.push import MetricsPush

FULL_NAME = "modelyard.api.inference.v1.InferenceService"
SERVICE_NAME = "inference"


class InferenceSettings(Settings):
    """What the inference service is told beside what every service is."""

    run_directory: Path = Field(
        description="Short absolute folder for sockets, process ids and logs of replicas."
    )
    cache_directory: Path = Field(description="Folder for downloaded artifacts.")
    blob_cache_directory: Path | None = Field(
        None, description="Folder of the cache shared with clients; by default that of this user."
    )
    start_timeout_seconds: float = Field(
        60.0, gt=0, description="Longest time a replica may take to load its model."
    )
    drain_grace_seconds: float = Field(
        30.0, ge=0, description="Longest time a stopping replica may finish predictions."
    )
    python_executable: str = Field(sys.executable, min_length=1, description="Python that runs replicas.")
    require_signature: bool = Field(
        default=False, description="Load only models that a trust root vouches for, in every deployment."
    )
    allow_model_code: bool = Field(
        default=False,
        description="Serve models whose artifact is a program: score.py, MLflow, Python, PyTorch. It runs as this user.",
    )
    backends_file: Path | None = Field(
        None,
        description="JSON file, mode 0600, of the servers that models of the runtime `remote` may run on.",
    )
    build_environments: bool = Field(
        default=False,
        description="Run replicas in environments that uv builds, as their deployments and artifacts ask for.",
    )
    build_timeout_seconds: float = Field(
        600.0, gt=0, description="Longest time that resolving, or installing, an environment may take."
    )
    prediction_logs: str = Field(
        "",
        description="Where Parquet files of access and predict logs go: file:///folder or s3://bucket/prefix; empty: nowhere.",
    )
    prediction_logs_seconds: float = Field(
        60.0, ge=0, description="How long lines wait for company before they become a Parquet file."
    )
    prediction_logs_days: int = Field(
        0, ge=0, le=36_500, description="How many days Parquet files are kept beside today; 0: for ever."
    )
    s3_endpoint: str = Field("", description="Address of the S3 server of prediction_logs; empty: AWS.")
    stop_replicas_on_exit: bool = Field(
        default=False, description="Stop all replicas with this service; else they go on answering."
    )


@asynccontextmanager
async def build(chassis: Chassis) -> AsyncIterator[Service]:
    """Yield the service; at the end leave or stop the replicas, as the settings say.

    Only one process at a time makes deployments true: another one waits here for the end of the first.
    """
    settings: InferenceSettings = chassis.settings
    async with AsyncExitStack() as stack:
        sole = Sole(settings.database, SERVICE_NAME)
        stack.push_async_callback(sole.close)
        await sole.take()
        wake, watches, prober = asyncio.Event(), Watches(), ReplicaProber()
        stack.push_async_callback(prober.close)
        launcher = stack.enter_context(_launcher(settings))
        shippings = _log_shippings(settings, chassis.db, launcher)
        upstream = PeerUpstream(chassis.peers)
        means = _means(chassis, upstream, launcher, prober, shippings, wake.set)
        stack.push_async_callback(means.close)
        db, store = means.db, means.store
        statistics = Statistics(db, store, prober, chassis.clock)
        carriers: list[LogShipping | MetricsPush] = [
            *shippings.values(),
            *_metrics_push(settings, statistics),
        ]
        for each in carriers:
            stack.push_async_callback(each.close)
        # Read before anybody can watch: a gateway must never see an emptier table than it serves.
        routes = Routes(await db.read(store.routes), wake.set)
        steps = Steps(means, _defaults(settings), wake.set)
        watching = Watching(db, store, chassis.grants, watches)
        start_timeout = timedelta(seconds=settings.start_timeout_seconds)
        reconciler = Reconciler(
            means, steps, routes, watching, sole=sole, wake=wake, start_timeout=start_timeout
        )
        if settings.stop_replicas_on_exit:
            stack.push_async_callback(reconciler.stop_all, settings.drain_grace_seconds)
        stack.push_async_callback(steps.close)
        activator = Activator(_activator_address(settings), routes, patience=settings.start_timeout_seconds)
        await activator.start()
        stack.push_async_callback(activator.stop)
        lookups = Lookups(db, store, upstream, chassis.grants)
        deployments = Deployments(
            db,
            store,
            lookups,
            upstream,
            chassis.grants,
            chassis.clock,
            wake.set,
            log_destinations=shippings.keys(),
            builds_environments=settings.build_environments,
        )
        servicer = InferenceServicer(
            lookups,
            deployments,
            Rollouts(db, store, chassis.clock, wake.set),
            watching,
            routes,
            ReplicaLogs(db, store, launcher, chassis.grants, watches),
            statistics,
        )
        if settings.metrics_listen:
            stack.enter_context(scrape.offered(statistics))
        yield Service(
            name=SERVICE_NAME,
            full_name=FULL_NAME,
            register=lambda server: add_InferenceServiceServicer_to_server(servicer, server),
            access=access_table(lookups),
            background=(
                sole.keep,
                reconciler.run,
                Followers(db, store, upstream, wake.set, lambda: reconciler.seen).run,
                Owners(db, store, upstream, wake.set, lambda: reconciler.seen).run,
                Lineage(db, upstream).run,
                Shadows(db, prober).run,
                LogSwitching(db, prober).run,
                *(each.run for each in carriers),
                *_log_retention(settings, chassis.clock),
            ),
        )


def _activator_address(settings: InferenceSettings) -> str:
    return f"unix:{settings.run_directory}/s/activator"


@contextmanager
def _launcher(settings: InferenceSettings) -> Iterator[LocalLauncher]:
    """Give what starts replicas, for this process alone; the process ends if the run folder cannot be used."""
    launcher = LocalLauncher(
        settings.run_directory, (settings.python_executable, "-m", "modelyard_inference.replica")
    )
    try:
        launcher.prepare()
        with launcher.alone():
            yield launcher
    except RunFolderUnusable as error:
        raise SystemExit(str(error)) from error


def _means(
    chassis: Chassis,
    upstream: PeerUpstream,
    launcher: Launcher,
    prober: Prober,
    shippings: Mapping[str, LogShipping],
    wake: Callable[[], None],
) -> Means:
    settings: InferenceSettings = chassis.settings
    store = InferenceStore(_activator_address(settings))
    artifacts = ArtifactCache(
        upstream, settings.cache_directory / "artifacts", BlobCache(settings.blob_cache_directory)
    )
    artifacts.prepare()
    environments = EnvironmentCache(
        settings.cache_directory / "environments",
        enabled=settings.build_environments,
        allow_code=settings.allow_model_code,
        traced=bool(settings.otlp_endpoint),
        build_seconds=settings.build_timeout_seconds,
        clock=chassis.clock,
    )
    environments.prepare()

    async def flush_logs(replica_id: str) -> None:
        await asyncio.gather(*(each.flush(replica_id) for each in shippings.values()))

    return Means(
        db=chassis.db,
        store=store,
        artifacts=artifacts,
        environments=environments,
        admission=Admission(upstream, wake),
        signers=Signers(chassis.db, store, upstream),
        launcher=launcher,
        prober=prober,
        clock=chassis.clock,
        actor=lambda: _self(chassis.grants),
        flush_logs=flush_logs,
    )


def _defaults(settings: InferenceSettings) -> ReplicaDefaults:
    return ReplicaDefaults(
        drain_seconds=settings.drain_grace_seconds,
        log_level=settings.log_level,
        log_format=settings.log_format,
        otlp_endpoint=settings.otlp_endpoint,
        require_signature=settings.require_signature,
        allow_code=settings.allow_model_code,
        backends_file=str(settings.backends_file.absolute()) if settings.backends_file else "",
    )


def _metrics_push(settings: InferenceSettings, statistics: Statistics) -> Iterator[MetricsPush]:
    """Yield what sends the figures of replicas to a collector, if there is one."""
    if settings.otlp_endpoint:
        from modelyard_inference.push import MetricsPush

        yield MetricsPush(statistics, settings.otlp_endpoint)


def _log_shippings(
    settings: InferenceSettings, db: Database, launcher: Launcher
) -> Mapping[str, LogShipping]:
    """Return what carries logs of predictions to the places that this installation has for them, by name."""
    made = []
    if settings.otlp_endpoint:  # what it needs is loaded only then
        from modelyard_inference.otlp_logs import OtlpLogs

        made.append(LogShipping(db, launcher, OtlpLogs(settings.otlp_endpoint), patience=0.0))
    if settings.prediction_logs:
        try:
            files = ParquetLogs(settings.prediction_logs, settings.s3_endpoint)
        except AddressUnusable as error:
            raise SystemExit(f"MODELYARD_PREDICTION_LOGS: {error}") from error
        made.append(LogShipping(db, launcher, files, patience=settings.prediction_logs_seconds))
    return {each.name: each for each in made}


def _log_retention(
    settings: InferenceSettings, clock: Clock
) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Yield what removes Parquet files, if this installation does not keep them for ever."""
    if settings.prediction_logs and settings.prediction_logs_days:
        from modelyard_inference.log_days import days_at

        kept = days_at(settings.prediction_logs, settings.s3_endpoint)
        yield LogRetention(kept, settings.prediction_logs_days, clock).run


def _self(grants: Grants) -> Principal:
    """Return this service as a principal, for events of what it does by itself."""
    known = (key for key, (name, _) in grants.principals().items() if name == SERVICE_NAME)
    return Principal(next(known, SERVICE_NAME), SERVICE_NAME, "service")
