"""From the contract's messages of rollouts to this service's own types. Every check of their shape is here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard_inference.canary import AT_ONCE, Figures, RolloutPolicy
from modelyard_inference.commands import RolloutVerb
from modelyard_inference.strategies import UpdateStrategy
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField, Violation

DEFAULT_MIN_REQUESTS = 100
DEFAULT_MAX_ERROR_PERCENT = 1.0
DEFAULT_MAX_ERROR_RISE = 1.0
MAX_MIN_REQUESTS = 1_000_000_000
MAX_PAUSE_MS = 7 * 24 * 3_600_000
MAX_LATENCY_MS = 3_600_000
MAX_RATIO = 1_000.0
MAX_MEASURED_GROUPS = 10_000
MAX_BUCKETS = 100
_WHOLE = 100

Problems = list[Violation]


def parse_policy(message: d.RolloutPolicy, problems: Problems) -> RolloutPolicy:
    """Read how a new version takes the traffic over; what is wrong is added to `problems`.

    Raises:
        LimitExceeded: too many steps.
    """
    limits.check("rollout_steps", len(message.steps))
    if not message.steps:
        if message.ByteSize():
            told = "give the shares of the new version, such as 5, 25, 50, 100; the other fields need them"
            problems.append(Violation("deployment.rollout_policy.steps", told))
        return AT_ONCE
    _check_steps(message.steps, problems)
    bounds: Sequence[tuple[str, float, float]] = (
        ("min_requests", message.min_requests, MAX_MIN_REQUESTS),
        ("max_error_percent", message.max_error_percent, _WHOLE),
        ("max_error_rise", message.max_error_rise, _WHOLE),
        ("max_latency_ratio", message.max_latency_ratio, MAX_RATIO),
    )
    problems += [
        Violation(f"deployment.rollout_policy.{name}", f"{value:g} is not between 0 and {most:g}")
        for name, value, most in bounds
        if not (math.isfinite(value) and 0 <= value <= most)
    ]
    return RolloutPolicy(
        steps=tuple(message.steps) if message.steps[-1] == _WHOLE else (*message.steps, _WHOLE),
        pause_ms=_milliseconds(message, "pause", MAX_PAUSE_MS, problems),
        min_requests=message.min_requests or DEFAULT_MIN_REQUESTS,
        max_error_percent=message.max_error_percent or DEFAULT_MAX_ERROR_PERCENT,
        max_error_rise=message.max_error_rise or DEFAULT_MAX_ERROR_RISE,
        max_latency_ms=_milliseconds(message, "max_latency", MAX_LATENCY_MS, problems),
        max_latency_ratio=message.max_latency_ratio,
    )


def parse_strategy(value: d.UpdateStrategy.ValueType, problems: Problems) -> UpdateStrategy:
    """Read how new replicas take over from old ones; what is wrong is added to `problems`."""
    if value == d.UPDATE_STRATEGY_UNSPECIFIED:
        return UpdateStrategy.AVAILABILITY_PRESERVING
    try:
        return UpdateStrategy(d.UpdateStrategy.Name(value).removeprefix("UPDATE_STRATEGY_"))
    except ValueError:
        told = f"{value} is unknown: choose one of {', '.join(UpdateStrategy)}"
        problems.append(Violation("deployment.update_strategy", told))
        return UpdateStrategy.AVAILABILITY_PRESERVING


def parse_verb(request: s.ControlRolloutRequest) -> RolloutVerb:
    """Return what to do with a rollout.

    Raises:
        InvalidField: nothing known.
    """
    try:
        name = s.ControlRolloutRequest.Verb.Name(request.verb).removeprefix("VERB_")
        return RolloutVerb(name)
    except ValueError:
        verbs = ", ".join(RolloutVerb)
        raise InvalidField("verb", f"choose one of {verbs}") from None


def parse_figures(messages: Sequence[s.GroupFigures]) -> dict[str, Figures]:
    """Return what a gateway counted, by name of the group.

    Raises:
        InvalidField: too much of it, or a negative number.
    """
    if len(messages) > MAX_MEASURED_GROUPS:
        raise InvalidField("figures", f"more than {MAX_MEASURED_GROUPS} groups")
    found = {}
    for message in messages:
        buckets = {bucket.upper_milliseconds: bucket.count for bucket in message.latencies}
        if len(buckets) > MAX_BUCKETS:
            raise InvalidField("figures.latencies", f"more than {MAX_BUCKETS} bounds")
        if min(message.answered, message.failed, *buckets.values()) < 0:
            raise InvalidField("figures", f"a number of group {message.group[:80]!r} is below zero")
        found[message.group] = Figures(message.answered, message.failed, buckets)
    return found


def _check_steps(steps: Iterable[int], problems: Problems) -> None:
    before = 0
    for index, step in enumerate(steps):
        if not before < step <= _WHOLE:
            told = f"{step} is not a percentage above {before}; each step is larger than the one before, at most 100"
            problems.append(Violation(f"deployment.rollout_policy.steps[{index}]", told))
            return
        before = step


def _milliseconds(message: d.RolloutPolicy, name: str, most: int, problems: Problems) -> int:
    duration = getattr(message, name)
    milliseconds: int = duration.seconds * 1000 + duration.nanos // 1_000_000
    if not 0 <= milliseconds <= most:
        told = f"is not between 0 and {most // 1000:,} seconds"
        problems.append(Violation(f"deployment.rollout_policy.{name}", told))
    return milliseconds
