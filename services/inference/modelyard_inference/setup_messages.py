"""Between the contract's messages of how replicas are set up and this service's own types. Every check of their shape is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.duration_pb2 import Duration

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard_inference.batching_policy import USUAL, Batching
from modelyard_inference.environment_policy import (
    OLDEST,
    Environment,
    EnvironmentSource,
    minor_version,
    requirement_of,
)
from modelyard_inference.variables import Variables, problem_with, sorted_variables
from modelyard_kit import limits
from modelyard_kit.errors import Violation

_MICROSECONDS = 1_000_000
_SHOWN_LENGTH = 80
_TOLD_LINES = 8
"""Wrong lines that a refusal tells of, which travels in headers, of which gRPC takes 8 KiB."""

Problems = list[Violation]


def parse_batching(message: d.Batching, problems: Problems) -> Batching:
    """Read how replicas gather predictions; what is wrong is added to `problems`.

    Raises:
        LimitExceeded: more rows, or a longer delay, than may be asked for.
    """
    delay = message.max_delay.seconds * _MICROSECONDS + message.max_delay.nanos // 1_000
    limits.check("rows_per_batch", message.max_batch_rows)
    limits.check("rows_waiting_per_replica", message.max_queue_rows)
    limits.check("batch_delay_microseconds", delay)
    given = {"max_batch_rows": message.max_batch_rows, "max_queue_rows": message.max_queue_rows}
    problems += [
        Violation(f"deployment.batching.{name}", f"{value} is below zero; 0 means {getattr(USUAL, name):,}")
        for name, value in given.items()
        if value < 0
    ]
    if delay < 0:
        problems.append(Violation("deployment.batching.max_delay", "is below zero"))
    rows, queue = (
        message.max_batch_rows or USUAL.max_batch_rows,
        message.max_queue_rows or USUAL.max_queue_rows,
    )
    if 0 < queue < rows:
        told = f"{queue} is less than one run takes, {rows}: raise it, or lower max_batch_rows"
        problems.append(Violation("deployment.batching.max_queue_rows", told))
    return Batching(rows, delay, queue)


def batching_to_proto(batching: Batching) -> d.Batching | None:
    """Return the message of how replicas gather predictions; None if they do as usual."""
    if batching == USUAL:
        return None
    delay = Duration()
    delay.FromMicroseconds(batching.max_delay_us)
    return d.Batching(
        max_batch_rows=batching.max_batch_rows,
        max_delay=delay if batching.max_delay_us else None,
        max_queue_rows=batching.max_queue_rows,
    )


def parse_variables(values: Mapping[str, str], problems: Problems) -> Variables:
    """Read variables for replicas; what is wrong is added to `problems`, without any value.

    Raises:
        LimitExceeded: there are too many, or they are too long.
    """
    limits.check("environment_variables", len(values))
    limits.check(
        "environment_variables_bytes", sum(len(name.encode()) + len(v.encode()) for name, v in values.items())
    )
    for name, value in sorted(values.items()):
        if problem := problem_with(name, value):
            told = f"{name[:_SHOWN_LENGTH]!r} {problem}"
            problems.append(Violation("deployment.environment_variables", told))
    return sorted_variables(values)


def parse_environment(message: d.Environment, problems: Problems) -> Environment:
    """Read which Python environment replicas run in; what is wrong is added to `problems`, by its line.

    Raises:
        LimitExceeded: there are too many requirements, or they are too long.
    """
    given = message.requirements
    limits.check("environment_requirements", len(given))
    limits.check("environment_requirements_bytes", sum(len(line.encode()) for line in given))
    source, lines = _source(message, problems), _requirements(given, problems)
    return Environment(source, lines, _python_version(message.python_version, problems))


def _source(message: d.Environment, problems: Problems) -> EnvironmentSource:
    said = bool(message.requirements or message.python_version)
    source = EnvironmentSource.REQUIREMENTS if said else EnvironmentSource.ARTIFACT
    if not message.source:
        return source
    field = "deployment.environment.source"
    try:
        source = EnvironmentSource(d.Environment.Source.Name(message.source).removeprefix("SOURCE_"))
    except ValueError:
        told = f"{message.source} is unknown: choose one of {', '.join(EnvironmentSource)}"
        problems.append(Violation(field, told))
    if said and source is not EnvironmentSource.REQUIREMENTS:
        told = f"{source} takes no requirements or python_version: leave those out, or choose REQUIREMENTS"
        problems.append(Violation(field, told))
    return source


def _requirements(given: Sequence[str], problems: Problems) -> tuple[str, ...]:
    field, found, wrong = "deployment.environment.requirements", set(), []
    for number, line in enumerate(given, 1):
        try:
            found.add(requirement_of(line))
        except ValueError as error:
            wrong.append(Violation(f"{field}[{number - 1}]", f"line {number}: {error}"))
    problems += wrong[:_TOLD_LINES]
    if len(wrong) > _TOLD_LINES:
        problems.append(Violation(field, f"{len(wrong) - _TOLD_LINES} more lines are wrong"))
    return tuple(sorted(found - {""}))


def _python_version(text: str, problems: Problems) -> str:
    if not text:
        return ""
    field, version = "deployment.environment.python_version", minor_version(text)
    if version is None:
        problems.append(Violation(field, f"{text[:_SHOWN_LENGTH]!r} is no version like '3.12'"))
        return ""
    if version < OLDEST:
        problems.append(
            Violation(field, f"replicas need Python {OLDEST[0]}.{OLDEST[1]} or later: choose one")
        )
    return f"{version[0]}.{version[1]}"


def environment_to_proto(environment: Environment) -> d.Environment:
    """Return the message of the environment that replicas run in."""
    return d.Environment(
        source=d.Environment.Source.Value(f"SOURCE_{environment.source}"),
        requirements=environment.requirements,
        python_version=environment.python_version,
    )
