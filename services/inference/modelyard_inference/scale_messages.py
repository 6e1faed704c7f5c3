"""From the contract's messages of how many replicas there are and what they may use to this service's own types. Every check of their shape is here."""

from __future__ import annotations

import math
from collections.abc import Iterable

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard_inference.resources import Resources
from modelyard_inference.scaling import FIXED, Autoscaling
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField, Violation

MIN_MEMORY_BYTES = 64 * 2**20
DEFAULT_IN_FLIGHT = 2.0
MAX_IN_FLIGHT = 100_000.0
DEFAULT_DELAY_MS = 60_000
MAX_DELAY_MS = 3_600_000

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
    limits.check("instances_per_replica", message.instances)
    if message.instances < 0:
        told = f"{message.instances} is below zero; 0 means two for each of `cpus`"
        problems.append(Violation("deployment.resources.instances", told))
    return Resources(message.cpus, message.memory_bytes, message.instances)


def parse_replicas(value: int, problems: Problems) -> int:
    """Read how many replicas a target has; what is wrong is added to `problems`.

    Raises:
        LimitExceeded: more than a target may have.
    """
    limits.check("replicas_per_target", value)
    if value < 0:
        problems.append(Violation("deployment.replicas", f"{value} is below zero; 0 means 1"))
    return value or 1


def parse_autoscaling(message: d.Autoscaling, problems: Problems) -> Autoscaling:
    """Read between which numbers replicas are scaled and by what; what is wrong is added to `problems`.

    Raises:
        LimitExceeded: more replicas than a target may have.
    """
    if not message.ByteSize():
        return FIXED
    limits.check("replicas_per_target", message.max_replicas)
    fewest, most = message.min_replicas or 1, message.max_replicas
    if message.scale_to_zero and message.min_replicas:
        told = f"{message.min_replicas} is no minimum of what scales to zero: leave it out"
        problems.append(Violation("deployment.autoscaling.min_replicas", told))
    if most < 1:
        told = f"{most} is below 1: give the most replicas that a target may have"
        problems.append(Violation("deployment.autoscaling.max_replicas", told))
    elif not 1 <= fewest <= most:
        told = f"{fewest} is not between 1 and max_replicas, {most}"
        problems.append(Violation("deployment.autoscaling.min_replicas", told))
    aim = message.target_in_flight
    if not (math.isfinite(aim) and 0 <= aim <= MAX_IN_FLIGHT):
        told = f"{aim:g} is not above 0 and at most {MAX_IN_FLIGHT:g}; 0 means {DEFAULT_IN_FLIGHT:g}"
        problems.append(Violation("deployment.autoscaling.target_in_flight", told))
    delay = DEFAULT_DELAY_MS
    if message.HasField("scale_down_delay"):
        delay = message.scale_down_delay.seconds * 1000 + message.scale_down_delay.nanos // 1_000_000
    if not 0 <= delay <= MAX_DELAY_MS:
        told = f"is not between 0 and {MAX_DELAY_MS // 1000:,} seconds"
        problems.append(Violation("deployment.autoscaling.scale_down_delay", told))
    return Autoscaling(0 if message.scale_to_zero else fewest, most, aim or DEFAULT_IN_FLIGHT, delay)


def parse_in_flight(messages: Iterable[s.GroupFigures]) -> dict[str, float]:
    """Return how many predictions of groups a gateway has in flight, by name of the group.

    Raises:
        InvalidField: one is below zero, or no number.
    """
    found = {message.group: message.in_flight for message in messages}
    for group, in_flight in found.items():
        if not (math.isfinite(in_flight) and in_flight >= 0):
            raise InvalidField("figures.in_flight", f"{in_flight:g} of group {group[:80]!r} is below zero")
    return found
