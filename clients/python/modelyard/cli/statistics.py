"""deployments statistics: what each version counted, named as Triton names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli._output import TABLE, Output, show_rows
from modelyard.cli._session import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelyard.types import ReplicaStatistics

_COLUMNS = (
    "model_version", "replicas", "success_count", "fail_count", "inference_count", "execution_count", "request", "queue",
    "compute_input", "compute_infer", "compute_output",
)  # fmt: skip


@dataclass(frozen=True)
class VersionFigures:
    """What the replicas of a version counted together; those of a shadow are apart from those that answer callers.

    Durations are of answered predictions, added up; as properties they are those of one prediction, on average and for people.
    """

    model_version: str
    shadow: bool
    replicas: int = 0
    """Those that said what they counted."""
    success_count: int = 0
    fail_count: int = 0
    failure_counts: Mapping[str, int] = field(default_factory=dict)
    """The failed ones by why."""
    inference_count: int = 0
    execution_count: int = 0
    request_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0

    @property
    def request(self) -> str:
        """The whole of it."""
        return self._each(self.request_ns)

    @property
    def queue(self) -> str:
        """The wait for the model."""
        return self._each(self.queue_ns)

    @property
    def compute_input(self) -> str:
        """The reading of the request."""
        return self._each(self.compute_input_ns)

    @property
    def compute_infer(self) -> str:
        """The run of the model."""
        return self._each(self.compute_infer_ns)

    @property
    def compute_output(self) -> str:
        """The writing of the answer."""
        return self._each(self.compute_output_ns)

    def _each(self, ns: int) -> str:
        return f"{ns / self.success_count / 1e6:.3f} ms" if self.success_count else ""


def add_to(deployments: typer.Typer) -> None:
    """Add the verb to those of deployments."""
    deployments.command("statistics")(statistics)


def statistics(
    name: Annotated[str, typer.Argument(help="Full name of the deployment.", metavar="NAME")],
    output: Output = TABLE,
) -> None:
    """Show what the versions behind an endpoint counted since their replicas began, and the time that a prediction takes on average.

    Counts are predictions, rows computed (inference) and runs of the model (execution). JSON has the sums of the times instead, in
    nanoseconds, and failures by their reason.
    """
    with connect() as client:
        found = client.deployments.statistics(name)
        show_rows(figures(found.replicas), _COLUMNS, output, empty="no replicas")


def figures(replicas: Iterable[ReplicaStatistics]) -> list[VersionFigures]:
    """What replicas counted, by version, in the order in which they come."""
    found: dict[tuple[str, bool], VersionFigures] = {}
    for one in replicas:
        key = (one.model_version, one.shadow)
        found[key] = _plus(found.get(key, VersionFigures(*key)), one)
    return list(found.values())


def _plus(total: VersionFigures, one: ReplicaStatistics) -> VersionFigures:
    counted, failures = one.counters, dict(total.failure_counts)
    for why, count in counted.failure_counts.items():
        failures[why] = failures.get(why, 0) + count
    return VersionFigures(
        total.model_version,
        total.shadow,
        total.replicas + one.measured,
        total.success_count + counted.success_count,
        sum(failures.values()),
        failures,
        total.inference_count + counted.inference_count,
        total.execution_count + counted.execution_count,
        total.request_ns + counted.request_ns,
        total.queue_ns + counted.queue_ns,
        total.compute_input_ns + counted.compute_input_ns,
        total.compute_infer_ns + counted.compute_infer_ns,
        total.compute_output_ns + counted.compute_output_ns,
    )
