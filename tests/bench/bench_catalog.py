"""What the catalog does at 1,000 to 1,000,000 versions, and what MLflow's tracking server does on the same PostgreSQL.

    python -m tests.bench.bench_catalog [--quick] [--sizes 1000 10000 100000 1000000] [--seconds 0.7] [--rounds 3]

Every size is a catalog of its own, filled before; all of them, and MLflow, are asked in turn within the same minutes, by raw
calls from one process: gRPC on the service's Unix socket without a gateway, HTTP on loopback. Server, database and this process
share the cores of the machine. tests/bench/README.md says what is in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path

import asyncpg
import numpy as np
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelyard.api.governance.v1 import governance_service_pb2 as governance_pb
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard_kit.channels import open_channel
from modelyard_suite import secrets
from tests.bench import catalog_jobs
from tests.bench.catalog_calls import Job, Measured, measure, watch
from tests.bench.catalog_mlflow import Peer, mlflow
from tests.bench.catalog_report import (
    CATALOG,
    GROWING,
    MLFLOW,
    WATCH,
    Key,
    Results,
    Sample,
    durations,
    median_of,
    read_metrics,
    report,
)
from tests.bench.catalog_rows import Rows
from tests.bench.catalog_suite import Installation, installation

WORK = Path(".work/bench")


def main() -> None:
    """Run the benchmark, print what it found, and keep it."""
    arguments = _arguments()
    # Whoever ends it gets what Ctrl-C gets: every server is stopped.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # A process of its own asks: what it does must not be done by the event loop that supervises the servers.
    with multiprocessing.get_context("spawn").Pool(1) as pool, Progress(*columns) as progress:
        task = progress.add_task("")
        results = asyncio.run(_run(pool, arguments, lambda text: progress.update(task, description=text)))
    report(results, WORK / "catalog.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=0.7, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="calls in flight")
    parser.add_argument("--changes", type=int, default=20, help="changes that watchers wait for")
    parser.add_argument("--only", default="", help="only calls with this in their name")
    parser.add_argument("--without-mlflow", action="store_true", help="leave MLflow out")
    parser.add_argument("--quick", action="store_true", help="about a minute: small, short, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.seconds, arguments.rounds, arguments.changes = [1_000, 10_000], 0.3, 1, 10
    arguments.sizes.sort()
    return arguments


async def _run(pool: Pool, arguments: argparse.Namespace, say: Callable[[str], None]) -> Results:
    results = Results(vars(arguments))
    async with installation(arguments.sizes, say) as here:
        results.postgres = await _postgres(here, arguments.sizes[-1])
        if arguments.without_mlflow:
            await _measure_all(pool, arguments, say, here, None, results)
        else:
            rows = Rows(arguments.sizes[-1])
            async with mlflow(here, rows, WORK.resolve().parent / "mlflow", say) as peer:
                results.mlflow = peer.version
                await _measure_all(pool, arguments, say, here, peer, results)
    return results


async def _measure_all(
    pool: Pool,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
    here: Installation,
    peer: Peer | None,
    results: Results,
) -> None:
    largest = arguments.sizes[-1]
    digest = await _upload(here, arguments.sizes)
    for turn in range(arguments.rounds):
        bearer = await _bearer(here)
        asked = {size: await catalog_jobs.jobs(here, size, bearer, digest) for size in arguments.sizes}
        tag = asked[largest]["search: tag"].questions[0].rows or 0
        others = peer.jobs(catalog_jobs.written(Rows(largest)), tag) if peer else {}
        for name in asked[largest]:
            if arguments.only not in name or (turn and name not in GROWING):
                continue  # what no goal is for is measured once
            for concurrency in arguments.concurrency:
                say(f"round {turn + 1} of {arguments.rounds}: {name}, {concurrency} in flight")
                for size in arguments.sizes:
                    job = asked[size][name]
                    sample = await _sample(pool, job, concurrency, arguments.seconds, here.metrics[size])
                    results.add(Key(CATALOG, name, size, concurrency), sample)
                if name in others:
                    sample = await _sample(pool, others[name], concurrency, arguments.seconds)
                    results.add(Key(MLFLOW, name, largest, concurrency), sample)
        for concurrency in arguments.concurrency if arguments.only in WATCH else ():
            say(f"round {turn + 1} of {arguments.rounds}: {WATCH}, {concurrency} watching")
            for size in arguments.sizes:
                job = asked[size]["create version"]
                late = await _watch(pool, here, size, job, concurrency, arguments.changes)
                results.add(Key(CATALOG, WATCH, size, concurrency), late)


async def _sample(pool: Pool, job: Job, concurrency: int, seconds: float, metrics: str = "") -> Sample:
    before = await _inside(metrics, job.call)
    found: Measured = await asyncio.to_thread(measure, pool, job, concurrency, seconds)
    after = await _inside(metrics, job.call)
    return _summary(
        found.latencies,
        per_second=len(found.latencies) / found.seconds,
        contended=found.contended,
        server_ms=median_of({bound: count - before[bound] for bound, count in after.items()}),
    )


async def _inside(metrics: str, call: str) -> Counter[float]:
    """Return how long calls took until now, as the service counts them; nothing of what has no metrics."""
    return durations(await asyncio.to_thread(read_metrics, metrics), call) if metrics else Counter()


async def _watch(pool: Pool, here: Installation, size: int, job: Job, watchers: int, changes: int) -> Sample:
    """Measure how long after its commit a change is heard of; PostgreSQL keeps the times of commits."""
    heard = await asyncio.to_thread(
        watch, pool, job, Rows(size).name(0).rpartition(".")[0], watchers, changes
    )
    connection = await asyncpg.connect(here.dsn(size))
    query = "SELECT id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM model_versions WHERE id = ANY($1::uuid[])"
    try:
        commits = dict(await connection.fetch(query, list(heard.times)))
    finally:
        await connection.close()
    return _summary([time - commits[version] for version, times in heard.times.items() for time in times])


def _summary(
    latencies: list[float],
    *,
    per_second: float | None = None,
    contended: int = 0,
    server_ms: float | None = None,
) -> Sample:
    if not latencies:
        raise AssertionError("not one call succeeded")
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return Sample(
        p50_ms=float(p50), p99_ms=float(p99), per_second=per_second, contended=contended, server_ms=server_ms
    )


async def _upload(here: Installation, sizes: list[int]) -> str:
    admin = here.home.token_file(secrets.ADMINISTRATOR).read_text().strip()
    async with here.client(admin) as client:
        # Models have the same ids in every catalog, so that what was stored for one of the largest is for all.
        return await catalog_jobs.upload(client, Rows(sizes[-1]))


async def _bearer(here: Installation) -> str:
    async with open_channel(here.home.socket("governance")) as channel:
        request = governance_pb.ExchangeTokenRequest(api_token=here.secret)
        return str((await GovernanceServiceStub(channel).ExchangeToken(request)).access_token)


async def _postgres(here: Installation, size: int) -> str:
    connection = await asyncpg.connect(here.dsn(size))
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
