"""How many catalog calls per second the whole way takes: client, Envoy, service, PostgreSQL, and back.

    python -m tests.bench.bench_catalog [--seconds 3] [--rounds 3] [--concurrency 1 16]

Starts a suite of its own, fills a model with versions, and asks from this process, closed loop. Client, Envoy, services
and database share the cores of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from modelyard.aio import AsyncClient
from modelyard.errors import Contention
from tests.framework.stack import Processes

MODEL = "bench.ml.model"
VERSIONS = 200
PAGE = 50
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Round:
    """One measurement."""

    per_second: float
    p50_ms: float
    p99_ms: float
    contended: int


def main() -> None:
    """Run the benchmark and print the table."""
    arguments = _arguments()
    with Processes.start() as stack:
        results = asyncio.run(_run(stack, arguments))
    _print(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="calls in flight")
    return parser.parse_args()


async def _run(stack: Processes, arguments: argparse.Namespace) -> dict[tuple[str, int], list[Round]]:
    async with stack.admin() as client:
        await _fill(client)
        calls = _calls(client)
        keys = [(name, concurrency) for name in calls for concurrency in arguments.concurrency]
        results: dict[tuple[str, int], list[Round]] = {key: [] for key in keys}
        for _ in range(arguments.rounds):
            for name, concurrency in keys:
                results[name, concurrency].append(await _measure(calls[name], concurrency, arguments.seconds))
    return results


async def _fill(client: AsyncClient) -> None:
    await client.catalogs.create("bench")
    await client.schemas.create("bench.ml")
    await client.models.create(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.bin").write_bytes(b"a model")
        artifact = await client.artifacts.upload(MODEL, folder)
    for number in range(VERSIONS):
        await client.versions.create(
            MODEL, artifact.digest, tags={"run": str(number)}, metrics={"accuracy": number}
        )
    await client.aliases.set(MODEL, {f"alias-{number}": number for number in range(1, 11)})


def _calls(client: AsyncClient) -> dict[str, Call]:
    numbers = count(1)
    return {
        "get a version by alias": lambda: client.versions.get(f"{MODEL}@alias-{next(numbers) % 10 + 1}"),
        f"list {PAGE} of the versions": lambda: client.versions.list(MODEL, page_size=PAGE).collect(PAGE),
        "create a version": lambda: client.versions.create(
            MODEL, tags={"run": "x"}, metrics={"accuracy": 0.5}
        ),
    }


async def _measure(call: Call, concurrency: int, seconds: float) -> Round:
    latencies: list[float] = []
    contended: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            try:
                await call()
            except Contention:  # allowed by the contract, but counted: it is work done for nothing
                contended.append(start)
            else:
                latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return Round(len(latencies) / seconds, p50, p99, len(contended))


def _print(results: dict[tuple[str, int], list[Round]]) -> None:
    table = Table(title=f"Catalog through Envoy; a model of {VERSIONS} versions at the start")
    for column in ("call", "in flight", "calls/s, min - median - max", "p50", "p99", "gave up by contention"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for (name, concurrency), rounds in results.items():
        rates = sorted(one.per_second for one in rounds)
        table.add_row(
            name,
            str(concurrency),
            f"{rates[0]:,.0f} - {statistics.median(rates):,.0f} - {rates[-1]:,.0f}",
            f"{statistics.median(one.p50_ms for one in rounds):,.1f} ms",
            f"{statistics.median(one.p99_ms for one in rounds):,.1f} ms",
            str(sum(one.contended for one in rounds)),
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} cores for everything")


if __name__ == "__main__":
    main()
