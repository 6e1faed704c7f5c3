"""What replicas write down and count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from modelyard.types._serving import DeploymentState, ReplicaState


class ReplicaLog(StrEnum):
    """One of the logs that a replica keeps beside what it and its model write."""

    ACCESS = "ACCESS"
    PREDICT = "PREDICT"


class LogLevel(StrEnum):
    """How much a line of a log matters."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line that a replica, its model, or a library of it wrote.

    `logger` is the name of a Python logger, `replica`, `launcher`, `stdout` or `stderr`, or empty for what was printed past Python;
    `request_ids` are those of the predictions that the model was computing then.
    """

    replica: str
    time: datetime | None = None
    level: LogLevel | None = None
    message: str = ""
    logger: str = ""
    request_ids: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InferenceCounters:
    """What a replica counted since its process began, or a sum of several; durations are those of answered predictions, added up.

    `failure_counts` has those that were not answered by why: REJECTED, CANCELED, BACKEND, OTHER. `latency_counts` are answered
    predictions up to each of `latency_bounds` (seconds) and above the one before, then those above the last.
    """

    success_count: int = 0
    failure_counts: Mapping[str, int] = field(default_factory=dict)
    inference_count: int = 0
    execution_count: int = 0
    request_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    latency_bounds: tuple[float, ...] = ()
    latency_counts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplicaStatistics:
    """What one replica is doing; without `measured` it did not say, and the figures are zero."""

    replica: str
    model_version: str = ""
    state: ReplicaState | None = None
    restarts: int = 0
    measured: bool = False
    counters: InferenceCounters = InferenceCounters()
    in_flight: int = 0
    pending: int = 0
    memory_bytes: int = 0
    shadow: bool = False


@dataclass(frozen=True, kw_only=True)
class DeploymentStatistics:
    """What the replicas of a deployment are doing; `counters` is the sum without shadows, which falls when one ends."""

    deployment: str
    state: DeploymentState | None = None
    time: datetime | None = None
    replicas: tuple[ReplicaStatistics, ...] = ()
    counters: InferenceCounters = InferenceCounters()
