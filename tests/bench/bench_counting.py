"""What a replica pays for counting its predictions, and for writing them down.

    python -m tests.bench.bench_counting [--seconds 2] [--rounds 5] [--concurrency 16]

Replicas as in `bench_predict`, one for each way: one that counts nothing, one as it is, one with an access log, one that also writes the
tensors of every prediction down with their values. They are asked in turn within the same minutes; the others rest meanwhile. What is
compared is the processor time that a replica spends on a prediction, which other work on the machine disturbs least. Beside it the time of the
code that counts, and that writes a line, alone: a prediction's share of a loop over it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import timeit
from pathlib import Path

from rich.console import Console
from rich.table import Table

from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.journal import Journal
from modelyard_inference.replica.statistics import Statistics
from tests.bench.bench_predict import Round, measure, start

REPLICA = "modelyard_inference.replica"
WAYS = {
    "nothing is counted": ("tests.bench.uncounted_replica", SILENT),
    "counted": (REPLICA, SILENT),
    "and an access log": (REPLICA, LogPolicy(access_log=True)),
    "and every tensor with values": (
        REPLICA,
        LogPolicy(access_log=True, predict_percent=100, include_payload=True),
    ),
}
"""Module to run and what it writes down, by what a replica does."""
_LOOPS = 200_000
_LINES = 5_000


def main() -> None:
    """Run the benchmark and print the table."""
    arguments = _arguments()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    replica_cores, client_cores = (cores[:1], cores[1:]) if len(cores) > 1 else ([], [])
    rounds: dict[str, list[Round]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="my") as name:
        started = {}
        try:
            for number, (way, (module, policy)) in enumerate(WAYS.items()):
                folder = Path(name) / str(number)
                folder.mkdir()
                started[way] = start(folder, replica_cores, module=module, policy=policy)
            for _ in range(arguments.rounds):
                for way, (address, process) in started.items():
                    rounds[way].append(
                        measure(address, process.pid, arguments.concurrency, arguments, client_cores)
                    )
        finally:
            for _, process in started.values():
                process.terminate()
                process.wait(timeout=60)
    _print(rounds)


def counting_ns() -> float:
    """Return the time of the counting code of one prediction, in nanoseconds."""
    counted = Statistics()

    def one() -> None:
        counted.computed(1, queue_ns=60_000, merge_ns=2_000, infer_ns=90_000)
        counted.answered(400_000, read_ns=20_000, write_ns=30_000, now=1)

    return min(timeit.repeat(one, number=_LOOPS, repeat=5)) / _LOOPS * 1e9


def writing_ns() -> float:
    """Return the time of writing one line of the access log, in nanoseconds."""
    call, asked = (
        Call(None, (("x-request-id", "0198-bench"),)),
        Prediction("predict", {}, 1, None, (), "", None),
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), LogPolicy(access_log=True))
        written = timeit.repeat(lambda: journal.answered(call, asked, {}, 400_000), number=_LINES, repeat=5)
    return min(written) / _LINES * 1e9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    parser.add_argument("--concurrency", type=int, default=16, help="requests in flight")
    parser.add_argument("--clients", type=int, default=1, help="client processes")
    return parser.parse_args()


def _print(rounds: dict[str, list[Round]]) -> None:
    table = Table(title="What counting and writing down cost, LogisticRegression on iris, FP32 [1,4]")
    for column in (
        "way",
        "replica CPU/prediction, min - median - max",
        "of the first",
        "predictions/s, median",
    ):
        table.add_column(column, justify="right")
    first = next(iter(rounds.values()))
    for way, results in rounds.items():
        costs = sorted(result.replica_cpu_us for result in results)
        # Each is compared with the one that was measured right before it.
        ratios = [one.replica_cpu_us / base.replica_cpu_us for one, base in zip(results, first, strict=True)]
        table.add_row(
            way,
            f"{costs[0]:,.0f} - {statistics.median(costs):,.0f} - {costs[-1]:,.0f} µs",
            f"{statistics.median(ratios):.3f}",
            f"{statistics.median(result.per_second for result in results):,.0f}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(
        f"Alone: counting {counting_ns():,.0f} ns, a line of the access log {writing_ns():,.0f} ns for a prediction"
    )


if __name__ == "__main__":
    main()
