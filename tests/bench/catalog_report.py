"""What the catalog's benchmark found: kept as JSON, shown as tables, held against the goals."""

from __future__ import annotations

import json
import re
import statistics
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.goals import Goal, machine

CATALOG, MLFLOW = "catalog", "MLflow"
WATCH = "watch latency"
SEARCH = "search: "
# The sizes between which nothing may grow more than the goal says.
SMALL, LARGE = 10_000, 1_000_000
TYPICAL = tuple(
    f"{SEARCH}{name}" for name in ("tag", "metric", "text", "state and time", "metadata and label")
)
GROWING = ("get version", "resolve alias", "create version", *TYPICAL, WATCH)
COMPARED = {"create version": "create", "resolve alias": "alias", "search: tag": "search"}

_BUCKET = re.compile(r"rpc_server_duration_milliseconds_bucket\{(.*)\} ([0-9.e+]+)")
_METHOD = re.compile(r'rpc_method="[^"]*/(\w+)"')
_BOUND = re.compile(r'le="([^"]+)"')


@dataclass(frozen=True)
class Key:
    """What was measured: of which server, which call, at how many versions, with how many calls in flight."""

    server: str
    call: str
    size: int
    concurrency: int


@dataclass(frozen=True)
class Sample:
    """One measurement. `server_ms` is the median duration within the service, as it tells itself; None where it tells none."""

    p50_ms: float
    p99_ms: float
    per_second: float | None
    contended: int
    server_ms: float | None


@dataclass
class Results:
    """Every measurement, and what it was made with."""

    arguments: Mapping[str, Any]
    postgres: str = ""
    mlflow: str = ""
    samples: dict[Key, list[Sample]] = field(default_factory=dict)

    def add(self, key: Key, sample: Sample) -> None:
        """Keep a measurement."""
        self.samples.setdefault(key, []).append(sample)

    def median(self, key: Key, value: str) -> float | None:
        """Return the median of one value over the rounds; None if it was not measured."""
        found = [getattr(sample, value) for sample in self.samples.get(key, ())]
        return statistics.median(found) if found and None not in found else None


def read_metrics(address: str) -> str:
    """Return what a service tells Prometheus."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def durations(metrics: str, call: str) -> Counter[float]:
    """Return how many calls of an RPC took at most so many milliseconds, as the service's histogram counts them; the last bound is infinite."""
    counted: Counter[float] = Counter()
    for line in metrics.splitlines():
        if (found := _BUCKET.match(line)) and (method := _METHOD.search(found[1])) and method[1] == call:
            bound = _BOUND.search(found[1])
            counted[float(bound[1] if bound else "inf")] += int(float(found[2]))
    return counted


def median_of(counted: Mapping[float, int]) -> float | None:
    """Return the median of durations counted by their upper bounds, as if those between two bounds were evenly spread; None of none."""
    lower, below, half = 0.0, 0, max(counted.values(), default=0) / 2
    for upper, within in sorted(counted.items()):
        if half and within >= half:
            return lower + (upper - lower) * (half - below) / (within - below)
        lower, below = upper, within
    return None


def report(results: Results, path: Path) -> None:
    """Print tables and goals, and keep all of it in a file."""
    console = Console(width=130)
    measured_on = _machine(results)
    goals = list(_goals(results))
    for table in _tables(results):
        console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in measured_on.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {**asdict(key), "rounds": [asdict(sample) for sample in samples]}
        for key, samples in results.samples.items()
    ]
    content = {
        "machine": measured_on,
        "arguments": dict(results.arguments),
        "goals": [asdict(goal) for goal in goals],
        "results": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"all figures: {path}")
    for goal in goals:
        print(goal)
        if goal.where:
            print(f"     {goal.where}")
    if not goals:
        print(f"no GOAL lines: they need calls of every kind at {LARGE:,} versions, and MLflow")


def _tables(results: Results) -> Iterator[Table]:
    sizes = sorted({key.size for key in results.samples})
    for concurrency in sorted({key.concurrency for key in results.samples}):
        table = Table(title=f"{concurrency} in flight: p50 / p99 in ms, calls per second")
        table.add_column("call")
        for size in sizes:
            table.add_column(f"{size:,} versions", justify="right")
        table.add_column("in the service, p50", justify="right")
        for server, call in dict.fromkeys((key.server, key.call) for key in results.samples):
            keys = [Key(server, call, size, concurrency) for size in sizes]
            inside = results.median(keys[-1], "server_ms")
            name = call if server == CATALOG else f"  {server}: {call}"
            cells = [_cell(results, key) for key in keys]
            if any(cells):
                table.add_row(name, *cells, f"{inside:.1f} ms" if inside is not None else "")
        yield table
    if MLFLOW in {key.server for key in results.samples}:
        yield _comparison(results, sizes[-1])


def _cell(results: Results, key: Key) -> str:
    p50, p99 = (results.median(key, value) for value in ("p50_ms", "p99_ms"))
    if p50 is None or p99 is None:
        return ""
    rate = results.median(key, "per_second")
    contended = sum(sample.contended for sample in results.samples[key])
    gave_up = f", {contended} gave up" if contended else ""
    return f"{p50:.1f} / {p99:.1f}{'' if rate is None else f', {rate:,.0f}/s'}{gave_up}"


def _comparison(results: Results, size: int) -> Table:
    table = Table(title=f"Calls per second at {size:,} versions, min - median - max")
    for column in ("call", "in flight", CATALOG, MLFLOW, "ratio"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for call, concurrency, ratio in _ratios(results, size):
        ours, theirs = (
            _spread(results, Key(server, call, size, concurrency)) for server in (CATALOG, MLFLOW)
        )
        table.add_row(call, str(concurrency), ours, theirs, f"{ratio:.1f}")
    return table


def _spread(results: Results, key: Key) -> str:
    rates = sorted(sample.per_second or 0.0 for sample in results.samples[key])
    return f"{rates[0]:,.0f} - {statistics.median(rates):,.0f} - {rates[-1]:,.0f}"


def _ratios(results: Results, size: int) -> Iterator[tuple[str, int, float]]:
    for key in results.samples:
        if key.server == MLFLOW:
            ours = results.median(Key(CATALOG, key.call, size, key.concurrency), "per_second")
            theirs = results.median(key, "per_second")
            if ours and theirs:
                yield key.call, key.concurrency, ours / theirs


def _goals(results: Results) -> Iterator[Goal]:
    def p50(call: str, size: int = LARGE, concurrency: int = 1) -> float | None:
        return results.median(Key(CATALOG, call, size, concurrency), "p50_ms")

    for name, call in (("get", "get version"), ("resolve", "resolve alias")):
        if (value := results.median(Key(CATALOG, call, LARGE, 1), "server_ms")) is not None:
            yield Goal(f"catalog-{name}-in-service-p50-ms", value, 3)
    searches = {call: value for call in TYPICAL if (value := p50(call)) is not None}
    if searches:
        worst = max(searches, key=searches.__getitem__)
        yield Goal("catalog-search-p50-ms", searches[worst], 25, where=worst)
    yield from _growth(p50, sorted({key.concurrency for key in results.samples}))
    ratios: dict[str, list[tuple[float, int]]] = {}
    for call, concurrency, ratio in _ratios(results, LARGE):
        ratios.setdefault(call, []).append((ratio, concurrency))
    for call, found in ratios.items():
        ratio, concurrency = min(found)
        where = f"{concurrency} in flight"
        yield Goal(f"catalog-{COMPARED[call]}-vs-mlflow", ratio, 5, at_least=True, where=where)


def _growth(p50: Callable[[str, int, int], float | None], concurrencies: list[int]) -> Iterator[Goal]:
    grown: dict[str, float] = {}
    for call in GROWING:
        for concurrency in concurrencies:
            before, after = p50(call, SMALL, concurrency), p50(call, LARGE, concurrency)
            if before and after:
                grown[f"{call}, {concurrency} in flight"] = after / before
    if grown:
        worst = max(grown, key=grown.__getitem__)
        yield Goal(
            "catalog-growth", grown[worst], 2, where=f"p50 from {SMALL:,} to {LARGE:,} versions: {worst}"
        )


def _machine(results: Results) -> dict[str, str]:
    found = machine("grpcio", "SQLAlchemy", "asyncpg") | {"PostgreSQL": results.postgres}
    return found | ({"MLflow": f"{results.mlflow} with 4 workers"} if results.mlflow else {})
