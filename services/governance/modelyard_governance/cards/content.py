"""The content of a model card: read, compared, measured, and wrapped as SageMaker's API has it. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard_governance.cards.schema import CARD
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField

Content = dict[str, Any]

_MOST_PROBLEMS = 20
_WRAPPERS = ("Content", "ModelCardContent")
_STATUSES = ("Draft", "PendingReview", "Approved", "Archived")

WANTED = (
    "model_overview.model_name",
    "model_overview.model_version",
    "model_overview.model_description",
    "model_overview.model_creator",
    "model_overview.model_owner",
    "model_overview.model_artifact",
    "model_overview.algorithm_type",
    "model_overview.problem_type",
    "intended_uses.purpose_of_model",
    "intended_uses.intended_uses",
    "intended_uses.factors_affecting_model_efficiency",
    "intended_uses.risk_rating",
    "intended_uses.explanations_for_risk_rating",
    "business_details.business_problem",
    "business_details.business_stakeholders",
    "training_details.objective_function",
    "training_details.training_observations",
    "training_details.training_job_details.training_datasets",
    "evaluation_details",
    "additional_information.ethical_considerations",
    "additional_information.caveats_and_recommendations",
)
"""What a complete card says."""


@dataclass(frozen=True)
class Completeness:
    """How much of what a card should say it says: a fraction from 0 to 1, and what is missing."""

    fraction: float
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One value that differs, as JSON; empty where there is none."""

    path: str
    before: str
    after: str


def parse(text: str) -> Content:
    """Read a card from JSON: the content itself, or as SageMaker's API wraps it (`Content`, in a package `ModelCardContent`).

    Raises:
        InvalidField: it is no JSON, or not in the format; every mistake is named, 20 at most.
        LimitExceeded: it is too long.
    """
    limits.check("card_length", len(text))
    document = _json(text, "content")
    for wrapper in _WRAPPERS:
        if isinstance(document, dict) and wrapper in document:
            document = _unwrapped(document, wrapper)
    problems = list(itertools.islice(CARD.check(document, ""), _MOST_PROBLEMS))
    if problems:
        raise InvalidField.many(problems)
    content: Content = document
    return content


def _json(text: str, field: str) -> Any:
    try:
        document = json.loads(text, parse_constant=_refuse)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise InvalidField(field, f"is not JSON: {error}") from error
    return document


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _unwrapped(document: Mapping[str, Any], wrapper: str) -> Any:
    status = document.get("ModelCardStatus", _STATUSES[0])
    if status not in _STATUSES:
        raise InvalidField("ModelCardStatus", f"is none of {', '.join(_STATUSES)}")
    inner = document[wrapper]
    return _json(inner, wrapper) if isinstance(inner, str) else inner


def dump(content: Mapping[str, Any]) -> str:
    """Return a card as it is stored and told: JSON with its names sorted."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def completeness(content: Mapping[str, Any]) -> Completeness:
    """Return how complete a card is."""
    missing = tuple(path for path in WANTED if not _at(content, path))
    return Completeness(1 - len(missing) / len(WANTED), missing)


def _at(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return every value that differs, by its path, in the order of the paths."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    return [
        Change(path, old.get(path, ""), new.get(path, ""))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield what lies in a value; lists of numbers are one value, as nobody reads them number by number."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(item, Mapping | str) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{path}[{position}]")
    elif path:
        yield path, dump(value)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Content:
    """Return two cards as one: what `over` says counts, and `under` fills the gaps."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[name] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result
