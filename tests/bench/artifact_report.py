"""What the artifact benchmark prints: seconds, ratios, goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.bench.goals import Goal, machine

if TYPE_CHECKING:
    import argparse

FLOOR = 0.6
PLAIN_S3 = 0.9
MLFLOW = 5.0
MEMORY_MIB = 64.0
SECOND_VERSION = 1.05


@dataclass
class Results:
    """Seconds of every measurement by name, and the figures that are none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    mlflow: str = ""
    memory_mib: float | None = None
    huge_bytes: int = 0
    sent: int = 0
    changed: int = 0

    def add(self, name: str, seconds: float) -> None:
        """Keep a measurement."""
        self.seconds.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float | None:
        """Median over the rounds; None if it was not measured."""
        found = self.seconds.get(name)
        return statistics.median(found) if found else None

    def ratio(self, theirs: str, ours: str) -> float | None:
        """How many times faster ours is, round by round, as a median; MLflow has the first round only."""
        first, second = self.seconds.get(theirs), self.seconds.get(ours)
        if not first or not second:
            return None
        return statistics.median(one / other for one, other in zip(first, second, strict=False))


def report(results: Results, arguments: argparse.Namespace) -> None:
    """Print the table, the machine and the goals."""
    console = Console(width=120)
    table = Table(
        title=f"{arguments.size / 2**20:,.0f} MiB in one file (large), {arguments.files:,} files (small)"
    )
    for column in ("what", "seconds, min - median - max", "MiB/s, median"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, found in results.seconds.items():
        size = results.huge_bytes if "huge" in name else 0 if "small" in name else arguments.size
        rate = f"{size / 2**20 / statistics.median(found):,.0f}" if size else ""
        table.add_row(name, f"{min(found):.2f} - {statistics.median(found):.2f} - {max(found):.2f}", rate)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in _machine(results).items()))
    if arguments.quick:
        console.print("no GOAL lines: --quick moves too little to say anything")
        return
    for goal in goals(results, arguments.size):
        print(goal)


def goals(results: Results, size: int) -> Iterator[Goal]:
    """The goals that were measured; `size` is that of the one large file, in bytes."""
    large = size_name(size)
    ratios = {
        f"artifacts-local-upload-{large}": ("floor large", "upload large", FLOOR),
        f"artifacts-local-download-{large}": ("floor large", "download large", FLOOR),
        "artifacts-local-small-upload": ("floor small", "upload small", FLOOR),
        "artifacts-local-small-download": ("floor small", "download small", FLOOR),
        "artifacts-s3-direct-up": ("plain upload S3", "upload S3", PLAIN_S3),
        "artifacts-s3-direct-down": ("plain download S3", "download S3", PLAIN_S3),
        **{
            f"artifacts-vs-mlflow-{kind}-{action}": (f"MLflow {action} {kind}", f"{action} {kind}", MLFLOW)
            for kind in ("large", "small")
            for action in ("upload", "download")
        },
    }
    for name, (theirs, ours, bound) in ratios.items():
        found = results.ratio(theirs, ours)
        if found is not None:
            yield Goal(name, found, bound, at_least=True)
    if results.memory_mib is not None:
        yield Goal("artifacts-memory-mib", results.memory_mib, MEMORY_MIB, at_least=False)
    if results.changed:
        yield Goal(
            "artifacts-second-version-bytes", results.sent / results.changed, SECOND_VERSION, at_least=False
        )


def size_name(size: int) -> str:
    """A size as goals name it: `1gib`, `32mib`, `1000b`."""
    units = ((2**30, "gib"), (2**20, "mib"), (2**10, "kib"))
    return next((f"{size // unit}{name}" for unit, name in units if size and size % unit == 0), f"{size}b")


def _machine(results: Results) -> dict[str, str]:
    return machine("grpcio") | ({"MLflow": results.mlflow} if results.mlflow else {})
