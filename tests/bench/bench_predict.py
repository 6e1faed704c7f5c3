"""How many predictions per second one replica answers, and how long one takes.

    python -m tests.bench.bench_predict [--seconds 3] [--rounds 3] [--concurrency 1 16 64]

Starts one replica process (scikit-learn LogisticRegression on iris, input FP32 [1,4], the workload W1) and asks it from
`--clients` processes of this machine, closed loop, over its Unix socket. Where the system allows it the replica is pinned to
the first core and the clients to the others, so that they do not take each other's time. The clients are Python, too:
beyond one replica's rate the figures show what the clients can do, so their CPU share is printed beside them.
Every answer is compared with the model's own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.replica.config import read_status
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_model, iris_rows, write_iris

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Round:
    """One measurement."""

    per_second: float
    p50_us: float
    p99_us: float
    replica_cpu_us: float
    client_cpu: float


def main() -> None:
    """Run the benchmark and print the table."""
    arguments = _arguments()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    replica_cores, client_cores = (cores[:1], cores[1:]) if len(cores) > 1 else ([], [])
    with tempfile.TemporaryDirectory(prefix="my") as folder:
        address, process = start(Path(folder), replica_cores)
        try:
            rounds: dict[int, list[Round]] = {concurrency: [] for concurrency in arguments.concurrency}
            for _ in range(arguments.rounds):
                for concurrency, results in rounds.items():
                    results.append(measure(address, process.pid, concurrency, arguments, client_cores))
        finally:
            process.terminate()
            process.wait(timeout=60)
    _print(rounds, cores)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements for each concurrency")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64], help="requests in flight")
    parser.add_argument(
        "--clients", type=int, default=1, help="client processes, at most one per request in flight"
    )
    return parser.parse_args()


def start(
    folder: Path,
    cores: Sequence[int],
    *,
    module: str = "modelyard_inference.replica",
    policy: LogPolicy = SILENT,
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a replica on some cores; return its address and its process when it is ready."""
    log_file = str(folder / "log") if policy != SILENT else ""
    config = iris_config(write_iris(folder / "model"), folder / "s", log_policy=policy, log_file=log_file)
    path = folder / "replica.json"
    config.dump(path)
    command = [sys.executable, "-m", module, "--config", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while read_status(path).get("state") != "ready":
        if process.poll() is not None:
            sys.exit(f"the replica did not start: {read_status(path).get('message')}")
        time.sleep(0.05)
    if cores:
        # The process counts for the threads that it starts later; those it has are set one by one.
        for thread in psutil.Process(process.pid).threads():
            os.sched_setaffinity(thread.id, cores)
    return config.listen, process


def measure(
    address: str, pid: int, concurrency: int, arguments: argparse.Namespace, cores: Sequence[int]
) -> Round:
    """Ask a replica for a while, and tell what came of it."""
    clients = min(arguments.clients, concurrency)
    shares = [concurrency // clients + (number < concurrency % clients) for number in range(clients)]
    replica = psutil.Process(pid)
    with multiprocessing.get_context("spawn").Pool(clients) as pool:
        pool.map(_warm, [(address, list(cores))] * clients)
        before = sum(replica.cpu_times()[:2])
        results = pool.starmap(_client, [(address, share, arguments.seconds) for share in shares])
        replica_cpu = sum(replica.cpu_times()[:2]) - before
    latencies = np.concatenate([np.array(latency) for latency, _ in results])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e6
    return Round(
        per_second=len(latencies) / arguments.seconds,
        p50_us=p50,
        p99_us=p99,
        replica_cpu_us=replica_cpu / len(latencies) * 1e6,
        client_cpu=sum(cpu for _, cpu in results) / clients / arguments.seconds,
    )


def _warm(setting: tuple[str, list[int]]) -> None:
    """Prepare a client process, so that imports and training are not measured."""
    address, cores = setting
    if cores:
        os.sched_setaffinity(0, cores)
    _client(address, 4, 0.3)


def _client(address: str, concurrency: int, seconds: float) -> tuple[list[float], float]:
    started = time.process_time()
    latencies = asyncio.run(_ask(address, concurrency, seconds))
    return latencies, time.process_time() - started


async def _ask(address: str, concurrency: int, seconds: float) -> list[float]:
    rows, labels = iris_rows(), iris_model().predict(iris_rows())
    bodies = [_body(row) for row in rows]
    expected = [int(label).to_bytes(8, "little") for label in labels]
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(METHOD)

        async def caller(number: int, until: float) -> None:
            while (start := time.perf_counter()) < until:
                answer = await call(bodies[number])
                latencies.append(time.perf_counter() - start)
                if expected[number] not in answer:
                    raise AssertionError(f"row {number}: wrong answer {answer!r}")
                number = (number + 1) % len(bodies)

        end = time.perf_counter() + seconds
        await asyncio.gather(*(caller(number % len(bodies), end) for number in range(concurrency)))
    return latencies


def _body(row: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=DEPLOYMENT, raw_input_contents=[row.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    return request.SerializeToString()


def _print(rounds: dict[int, list[Round]], cores: Sequence[int]) -> None:
    table = Table(title="One replica, W1: LogisticRegression on iris, FP32 [1,4], through its socket")
    for column in (
        "in flight", "predictions/s, min - median - max", "p50", "p99", "replica CPU/prediction", "client busy",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for concurrency, results in rounds.items():
        rates = sorted(result.per_second for result in results)
        table.add_row(
            str(concurrency),
            f"{rates[0]:,.0f} - {statistics.median(rates):,.0f} - {rates[-1]:,.0f}",
            f"{statistics.median(result.p50_us for result in results):,.0f} µs",
            f"{statistics.median(result.p99_us for result in results):,.0f} µs",
            f"{statistics.median(result.replica_cpu_us for result in results):,.0f} µs",
            f"{statistics.median(result.client_cpu for result in results):.0%}",
        )
    console = Console(width=120)
    console.print(table)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("grpcio", "numpy", "scikit-learn"))
    console.print(
        f"Python {platform.python_version()}, {versions}; {len(cores) or os.cpu_count()} cores"
        + (", replica pinned to one" if len(cores) > 1 else "")
    )


if __name__ == "__main__":
    main()
