"""A model card as a page: titles, fields, tables and drawings in order, before anybody paints them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard_governance.cards import charts
from modelyard_governance.cards.content import Completeness

_TITLES = {
    "model_overview": "Overview",
    "model_package_details": "Package",
    "intended_uses": "Intended uses",
    "business_details": "Business",
    "training_details": "Training",
    "evaluation_details": "Evaluation",
    "additional_information": "More",
}
MOST_SHAPES = 4_000
"""Lines, boxes and texts of all drawings together; what 16 matrices of 10 rows and columns need."""
_IN_HEADER = ("model_name", "model_description", "risk_rating")
_OWN_NAMES = ("metadata", "custom_details")
"""Fields that hold names of somebody's own."""


@dataclass(frozen=True)
class Fields:
    """Names and what they are."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing with its name and notes."""

    title: str
    notes: str
    drawing: charts.Drawing


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    text: str


Block = Fields | Table | Chart | Heading


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    version: str
    description: str
    risk: str
    completeness: Completeness
    sections: tuple[Section, ...]
    footer: str


def lay_out(
    content: Mapping[str, Any],
    completeness: Completeness,
    *,
    version: str,
    revision: int,
    author: str,
    time: datetime,
) -> Page:
    """Return the page of a valid card.

    Args:
        content: the card.
        completeness: of it.
        version: what the version is called.
        revision: which revision of its card this is.
        author: who wrote that.
        time: when.
    """
    overview = content.get("model_overview", {})
    made = _bounded(_section(name, content[name]) for name in _TITLES if content.get(name))
    return Page(
        title=overview.get("model_name") or version,
        version=version,
        description=overview.get("model_description", ""),
        risk=content.get("intended_uses", {}).get("risk_rating", ""),
        completeness=completeness,
        sections=tuple(section for section in made if section.blocks),
        footer=f"Revision {revision} of the model card of {version}, by {author}, {time:%Y-%m-%d %H:%M} UTC",
    )


def _bounded(sections: Iterable[Section]) -> Iterator[Section]:
    """Draw what can be painted in a moment; of charts that are too many only the names remain."""
    room = MOST_SHAPES
    for section in sections:
        blocks: list[Block] = []
        for block in section.blocks:
            if isinstance(block, Chart):
                room -= len(block.drawing.shapes)
            if isinstance(block, Chart) and room < 0:
                blocks.append(Heading(f"{block.title}: not drawn, there are too many charts"))
            else:
                blocks.append(block)
        yield Section(section.title, tuple(blocks))


def _section(name: str, value: Any) -> Section:
    if name == "evaluation_details":
        blocks = [block for evaluation in value for block in _evaluation(evaluation)]
    else:
        blocks = list(
            _blocks({key: item for key, item in _flat(name, value).items() if key not in _IN_HEADER})
        )
    return Section(_TITLES[name], tuple(blocks))


def _flat(name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a section with what the format nests deeper than people read it."""
    if name != "training_details":
        return value
    objective = value.get("objective_function", {})
    function = objective.get("function", {})
    words = " ".join(function[part] for part in ("function", "facet", "condition") if part in function)
    told = {"objective": "\n".join(filter(None, (words, objective.get("notes", ""))))}
    rest = {
        key: item for key, item in value.items() if key not in ("objective_function", "training_job_details")
    }
    job: Mapping[str, Any] = value.get("training_job_details", {})
    return {**{key: item for key, item in told.items() if item}, **rest, **job}


def _blocks(value: Mapping[str, Any], *, own_names: bool = False) -> Iterator[Block]:
    """Yield single values as fields first, then what has a form of its own."""
    single = tuple(
        (name if own_names else label(name), text) for name, item in value.items() if (text := _single(item))
    )
    if single:
        yield Fields(single)
    for name, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], Mapping):
            yield _table(label(name), item)
        elif isinstance(item, Mapping) and item:
            yield Heading(label(name))
            yield from _blocks(item, own_names=name in _OWN_NAMES)


def _single(item: Any) -> str:
    if isinstance(item, Mapping):
        return ""
    if isinstance(item, list):
        return "" if item and isinstance(item[0], Mapping) else "\n".join(map(_text, item))
    return _text(item)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(
        title,
        tuple(label(name) for name in names),
        tuple(tuple(_text(row.get(name, "")) for name in names) for row in rows),
    )


def _evaluation(evaluation: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading(evaluation["name"])
    shown = {name: item for name, item in evaluation.items() if name not in ("name", "metric_groups")}
    yield from _blocks(shown)
    for group in evaluation.get("metric_groups", ()):
        metrics = group["metric_data"]
        single = [metric for metric in metrics if charts.draw(metric) is None]
        if single:
            rows = tuple(
                (metric["name"], _text(metric["value"]), metric.get("notes", "")) for metric in single
            )
            notes = any(row[2] for row in rows)
            headings = ("Metric", "Value", "Notes") if notes else ("Metric", "Value")
            yield Table(group["name"], headings, rows if notes else tuple(row[:2] for row in rows))
        for metric in metrics:
            drawing = charts.draw(metric)
            if drawing is not None:
                yield Chart(metric["name"], metric.get("notes", ""), drawing)


def label(name: str) -> str:
    """Return the name of a field as people write it."""
    words = name.replace("_", " ").strip()
    own = words.removeprefix("user provided ")
    if own != words:  # the format has fields of the job's own beside them
        words = f"{own} (user-provided)"
    return (words[:1].upper() + words[1:]).replace(" arn", " ARN").replace("Model id", "Model ID")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            charts.number(value)
            if not value.is_integer()
            else f"{value:.0f}"
            if abs(value) < 1e15
            else str(value)
        )
    return str(value)
