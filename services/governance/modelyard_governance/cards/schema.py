"""The format of SageMaker's model cards, with every limit that it documents really enforced. Pure.

The published JSON Schema does not do that: in its dialect `maxContains` means nothing, what stands beside `$ref` is ignored, and its
patterns are not anchored, so that a validator accepts 31 artifacts of at most 15. Here each kind of value is a small object that yields
what is wrong with a value, and where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard_kit.errors import Violation

Found = Iterator[Violation]


class Kind(Protocol):
    """A kind of value."""

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong with a value, named by its path."""


@dataclass(frozen=True)
class Text:
    """A text of so many characters, or one of a few."""

    maximum: int
    minimum: int = 0
    choices: tuple[str, ...] = ()

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, str):
            yield Violation(path, f"must be a text, not {_name(value)}")
        elif self.choices and value not in self.choices:
            yield Violation(path, f"{value[:60]!r} is none of {', '.join(self.choices)}")
        elif len(value) > self.maximum:
            yield Violation(path, f"has {len(value)} characters; {self.maximum} are the most")
        elif len(value) < self.minimum:
            yield Violation(path, "must not be empty")
        elif "\0" in value:
            yield Violation(path, "holds a zero character, which cannot be stored")


@dataclass(frozen=True)
class Number:
    """A number that JSON can hold."""

    minimum: float = -math.inf

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield Violation(path, f"must be a number, not {_name(value)}")
        elif not math.isfinite(value):
            yield Violation(path, "must be a finite number")
        elif value < self.minimum:
            yield Violation(path, f"is {value}; {self.minimum:g} is the least")


@dataclass(frozen=True)
class Array:
    """So many values of one kind."""

    item: Kind
    maximum: int | None = None
    minimum: int = 0

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, list):
            yield Violation(path, f"must be a list, not {_name(value)}")
            return
        if self.maximum is not None and len(value) > self.maximum:
            yield Violation(path, f"has {len(value)} items; {self.maximum} are the most")
            return
        if len(value) < self.minimum:
            yield Violation(path, f"has {len(value)} items; {self.minimum} are the least")
        for position, item in enumerate(value):
            yield from self.item.check(item, f"{path}[{position}]")


@dataclass(frozen=True)
class Object:
    """Named values, each of its kind, and no others."""

    fields: Mapping[str, Kind]
    required: tuple[str, ...] = ()

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, Mapping):
            yield Violation(path or "content", f"must be an object, not {_name(value)}")
            return
        for name in self.required:
            if name not in value:
                yield Violation(_join(path, name), "is required")
        for name, item in value.items():
            if name in self.fields:
                yield from self.fields[name].check(item, _join(path, name))
            else:
                known = ", ".join(self.fields)
                yield Violation(
                    _join(path, name[:80]), f"is no field of a model card here; there are {known}"
                )


@dataclass(frozen=True)
class Map:
    """Values of one kind under names of one's own."""

    item: Kind

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, Mapping):
            yield Violation(path, f"must be an object, not {_name(value)}")
            return
        for name, item in value.items():
            if "\0" in name:
                yield Violation(path, "has a name with a zero character, which cannot be stored")
            yield from self.item.check(item, _join(path, name[:80]))


@dataclass(frozen=True)
class Metric:
    """A metric, whose `type` says what its value and its axes are."""

    kinds: Mapping[str, Object] = field(default_factory=lambda: METRICS)

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, Mapping):
            yield Violation(path, f"must be an object, not {_name(value)}")
            return
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in self.kinds:
            yield Violation(_join(path, "type"), f"must be one of {', '.join(self.kinds)}")
            return
        yield from self.kinds[kind].check(value, path)


@dataclass(frozen=True)
class Boolean:
    """True or false."""

    def check(self, value: Any, path: str) -> Found:
        """Yield what is wrong; see `Kind`."""
        if not isinstance(value, bool):
            yield Violation(path, f"must be true or false, not {_name(value)}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


SHORT, LONG = Text(1_024), Text(2_048)
_NAME = Text(255, minimum=1)
_AXIS, _AXES = Text(63), Array(Text(63))
_POINT = Array(Number(), 2, minimum=2)


def _metric(kind: str, value: Kind, x_axis: Kind, y_axis: Kind) -> Object:
    fields = {"name": _NAME, "notes": SHORT, "type": Text(63, choices=(kind,)), "value": value}
    axes = {"x_axis_name": x_axis, "y_axis_name": y_axis}
    return Object(fields | axes, required=("name", "type", "value"))


METRICS: dict[str, Object] = {
    "number": _metric("number", Number(), _AXIS, _AXIS),
    "string": _metric("string", Text(63), _AXIS, _AXIS),
    "boolean": _metric("boolean", Boolean(), _AXIS, _AXIS),
    "linear_graph": _metric("linear_graph", Array(_POINT, minimum=1), _AXIS, _AXIS),
    "bar_chart": _metric("bar_chart", Array(Number(), minimum=1), _AXES, _AXIS),
    "matrix": _metric("matrix", Array(Array(Number(), 20, minimum=1), 20, minimum=1), _AXES, _AXES),
}
"""Kinds of metrics by their `type`."""

_TRAINING_METRIC = Object({"name": _NAME, "notes": SHORT, "value": Number()}, required=("name", "value"))
_HYPER_PARAMETER = Object({"name": _NAME, "value": Text(255)}, required=("name",))
_CONTAINERS = Object({"container_image": Array(SHORT, 15)})
_OBJECTIVE = Object(
    {"function": Text(63, choices=("Maximize", "Minimize")), "facet": Text(63), "condition": Text(63)}
)
_INFERENCE = Object(
    {
        "containers": Array(
            Object({"model_data_url": SHORT, "image": Text(255), "nearest_model_name": SHORT}, ("image",)),
            15,
            minimum=1,
        )
    },
    required=("containers",),
)
_ALGORITHMS = Array(
    Object({"algorithm_name": Text(170), "model_data_url": SHORT}, required=("algorithm_name",)), 1, minimum=1
)

CARD = Object(
    {
        "model_overview": Object(
            {
                "model_name": SHORT,
                "model_id": SHORT,
                "model_version": Number(minimum=1),
                "model_description": SHORT,
                "model_creator": SHORT,
                "model_owner": SHORT,
                "model_artifact": Array(SHORT, 15),
                "algorithm_type": SHORT,
                "problem_type": SHORT,
                "inference_environment": _CONTAINERS,
            }
        ),
        "model_package_details": Object(
            {
                "model_package_description": SHORT,
                "model_package_arn": SHORT,
                "created_by": Object({"user_profile_name": Text(63)}),
                "model_package_status": Text(
                    63, choices=("Pending", "InProgress", "Completed", "Failed", "Deleting")
                ),
                "model_approval_status": Text(63, choices=("Approved", "Rejected", "PendingManualApproval")),
                "approval_description": SHORT,
                "model_package_group_name": Text(63),
                "model_package_name": Text(63),
                "model_package_version": Number(minimum=1),
                "domain": SHORT,
                "task": SHORT,
                "source_algorithms": _ALGORITHMS,
                "inference_specification": _INFERENCE,
            }
        ),
        "intended_uses": Object(
            {
                "purpose_of_model": LONG,
                "intended_uses": LONG,
                "factors_affecting_model_efficiency": LONG,
                "risk_rating": Text(63, choices=("High", "Medium", "Low", "Unknown")),
                "explanations_for_risk_rating": LONG,
            }
        ),
        "business_details": Object(
            {"business_problem": LONG, "business_stakeholders": LONG, "line_of_business": LONG}
        ),
        "training_details": Object(
            {
                "objective_function": Object({"function": _OBJECTIVE, "notes": SHORT}),
                "training_observations": SHORT,
                "training_job_details": Object(
                    {
                        "training_arn": SHORT,
                        "training_datasets": Array(SHORT, 15),
                        "training_environment": _CONTAINERS,
                        "training_metrics": Array(_TRAINING_METRIC, 50),
                        "user_provided_training_metrics": Array(_TRAINING_METRIC, 50),
                        "hyper_parameters": Array(_HYPER_PARAMETER, 100),
                        "user_provided_hyper_parameters": Array(_HYPER_PARAMETER, 100),
                    }
                ),
            }
        ),
        "evaluation_details": Array(
            Object(
                {
                    "name": Text(63, minimum=1),
                    "evaluation_observation": Text(2_096),
                    "evaluation_job_arn": Text(256),
                    "datasets": Array(SHORT, 10),
                    "metadata": Map(SHORT),
                    "metric_groups": Array(
                        Object(
                            {"name": Text(63, minimum=1), "metric_data": Array(Metric())},
                            required=("name", "metric_data"),
                        )
                    ),
                },
                required=("name",),
            )
        ),
        "additional_information": Object(
            {
                "ethical_considerations": LONG,
                "caveats_and_recommendations": LONG,
                "custom_details": Map(SHORT),
            }
        ),
    }
)
"""A whole card."""
