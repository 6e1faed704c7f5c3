"""From the contract's messages of what replicas may use to this service's own types. Every check of their shape is here."""

from __future__ import annotations

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard_inference.resources import Resources
from modelyard_kit import limits
from modelyard_kit.errors import Violation

MIN_MEMORY_BYTES = 64 * 2**20

Problems = list[Violation]


def parse_resources(message: d.Resources, problems: Problems) -> Resources:
    """Read what a replica may use; what is wrong is added to `problems`.

    Raises:
        LimitExceeded: more cores or memory than may be asked for.
    """
    limits.check("cpus_per_replica", message.cpus)
    limits.check("memory_bytes_per_replica", message.memory_bytes)
    if message.cpus < 0:
        told = f"{message.cpus} is below zero; 0 means any core"
        problems.append(Violation("deployment.resources.cpus", told))
    if message.memory_bytes and message.memory_bytes < MIN_MEMORY_BYTES:
        told = f"{message.memory_bytes} is less than any replica needs, {MIN_MEMORY_BYTES}; 0 means no bound"
        problems.append(Violation("deployment.resources.memory_bytes", told))
    return Resources(message.cpus, message.memory_bytes)
