"""Metrics of a model card as drawings: lines, boxes and texts on a page of fixed size, which HTML and PDF paint alike. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

WIDTH, HEIGHT = 520.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 18.0, 48.0
_TICKS = 5
_LARGEST = 1e300
# Less than this between two values, or than this part of them, cannot be divided into steps.
_SMALLEST = 1e-290
_FINEST = 1e-12
_LABEL_LENGTH = 14

INK, MUTED, GRID = "#1f2933", "#52606d", "#e4e7eb"
ACCENT, PAPER = "#2563a8", "#ffffff"
_SHADE = ((239, 246, 255), (23, 78, 140))
"""Of the smallest and the largest value of a matrix."""


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    color: str
    width: float = 1.0


@dataclass(frozen=True)
class Box:
    """A filled rectangle; `title` is what it shows, for who cannot see it or points at it."""

    x: float
    y: float
    width: float
    height: float
    color: str
    title: str = ""


@dataclass(frozen=True)
class Label:
    """A text at a point of its base line; `upward` is turned by a quarter."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"
    color: str = MUTED
    size: float = 11.0
    upward: bool = False


Shape = Line | Box | Label


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order they are painted; y grows downwards."""

    shapes: tuple[Shape, ...]
    description: str
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True)
class _Scale:
    """Maps values to places, with round values as ticks."""

    low: float
    high: float
    begin: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float, *, zero: bool = False) -> _Scale:
        """Return a scale over values, between two places; with `zero` it reaches to 0."""
        kept = [max(-_LARGEST, min(_LARGEST, value)) for value in values]
        low, high = min(kept), max(kept)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low < max(_SMALLEST, _FINEST * max(abs(low), abs(high))):
            room = abs(low) * 0.1 if abs(low) > _SMALLEST else 1.0
            low, high = low - room, high + room
        step = _round_step((high - low) / _TICKS)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, begin, end, step)

    def __call__(self, value: float) -> float:
        """Return where a value is."""
        share = (max(-_LARGEST, min(_LARGEST, value)) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Return round values from end to end."""
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * number for number in range(count + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power)


def number(value: float) -> str:
    """Return a number as people read it."""
    text = f"{value:.4g}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def draw(metric: Mapping[str, Any]) -> Drawing | None:
    """Return the drawing of a valid metric; None if it is a single value."""
    match metric["type"]:
        case "linear_graph":
            return _lines(metric)
        case "bar_chart":
            return _bars(metric)
        case "matrix":
            return _matrix(metric)
        case _:
            return None


def _lines(metric: Mapping[str, Any]) -> Drawing:
    points: list[list[float]] = metric["value"]
    x = _Scale.over([point[0] for point in points], _LEFT, WIDTH - _RIGHT)
    y = _Scale.over([point[1] for point in points], HEIGHT - _BOTTOM, _TOP)
    path = tuple((x(point[0]), y(point[1])) for point in points)
    shapes: list[Shape] = _vertical_axis(y, metric.get("y_axis_name", ""))
    shapes += [Label(x(tick), HEIGHT - _BOTTOM + 16, number(tick)) for tick in x.ticks()]
    shapes.append(_below(metric.get("x_axis_name", "")))
    shapes.append(Line(path, ACCENT, 2.0))
    if len(points) <= 40:
        shapes += [
            Box(at[0] - 2.5, at[1] - 2.5, 5, 5, ACCENT, f"{number(value[0])}, {number(value[1])}")
            for at, value in zip(path, points, strict=True)
        ]
    low, high = min(point[1] for point in points), max(point[1] for point in points)
    return Drawing(tuple(shapes), f"Line through {len(points)} points, from {number(low)} to {number(high)}")


def _bars(metric: Mapping[str, Any]) -> Drawing:
    values: list[float] = metric["value"]
    names: Sequence[str] = metric.get("x_axis_name", ())
    y = _Scale.over(values, HEIGHT - _BOTTOM, _TOP, zero=True)
    slot = (WIDTH - _LEFT - _RIGHT) / len(values)
    shapes: list[Shape] = _vertical_axis(y, metric.get("y_axis_name", ""))
    every = math.ceil(len(values) / 12)
    for position, value in enumerate(values):
        name = names[position] if position < len(names) else str(position + 1)
        top, base = sorted((y(value), y(0.0)))
        left = _LEFT + slot * position
        title = f"{name}: {number(value)}"
        wide = min(slot * 0.7, 64.0)
        shapes.append(Box(left + (slot - wide) / 2, top, wide, max(base - top, 0.5), ACCENT, title))
        if position % every == 0:
            shapes.append(Label(left + slot / 2, HEIGHT - _BOTTOM + 16, _short(name, slot * every)))
        if len(values) <= 12:
            above = top - 4 if value >= 0 else base + 12
            shapes.append(Label(left + slot / 2, above, number(value), color=INK, size=10))
    shapes.append(Line(((_LEFT, y(0.0)), (WIDTH - _RIGHT, y(0.0))), MUTED))
    return Drawing(tuple(shapes), f"{len(values)} bars, from {number(min(values))} to {number(max(values))}")


def _matrix(metric: Mapping[str, Any]) -> Drawing:
    rows: list[list[float]] = metric["value"]
    columns = max(map(len, rows))
    across, down = metric.get("x_axis_name", ()), metric.get("y_axis_name", ())
    left, top = 110.0, 30.0
    width = (WIDTH - left - _RIGHT) / columns
    height = min(44.0, max(22.0, 220.0 / len(rows)))
    flat = [value for row in rows for value in row]
    low, high = min(flat), max(flat)
    shapes: list[Shape] = [
        Label(left + width * (position + 0.5), top - 8, _short(_named(across, position), width))
        for position in range(columns)
    ]
    for line, row in enumerate(rows):
        y = top + height * line
        name = _short(_named(down, line), left)
        shapes.append(Label(left - 8, y + height / 2 + 4, name, anchor="end"))
        for position, value in enumerate(row):
            share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0
            title = f"{_named(down, line)} / {_named(across, position)}: {number(value)}"
            x = left + width * position
            shapes.append(Box(x + 0.75, y + 0.75, width - 1.5, height - 1.5, _shade(share), title))
            color = PAPER if share > 0.55 else INK
            size = 11.0 if width > 34 else 8.0
            shapes.append(
                Label(x + width / 2, y + height / 2 + 4, _short(number(value), width), color=color, size=size)
            )
    description = f"Matrix of {len(rows)} rows and {columns} columns, from {number(low)} to {number(high)}"
    return Drawing(tuple(shapes), description, height=top + height * len(rows) + 10)


def _vertical_axis(scale: _Scale, name: str) -> list[Shape]:
    shapes: list[Shape] = []
    for tick in scale.ticks():
        y = scale(tick)
        shapes.append(Line(((_LEFT, y), (WIDTH - _RIGHT, y)), GRID))
        shapes.append(
            Label(_LEFT - 8, y + 4, number(0.0 if abs(tick) < scale.step / 1e6 else tick), anchor="end")
        )
    if name:
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        shapes.append(Label(14, middle, name[:40], color=INK, upward=True))
    return shapes


def _below(name: str) -> Label:
    return Label((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, name[:80], color=INK)


def _named(names: Sequence[str], position: int) -> str:
    return names[position] if position < len(names) else str(position + 1)


def _short(text: str, room: float) -> str:
    most = max(2, min(_LABEL_LENGTH, int(room / 6.2)))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _shade(share: float) -> str:
    low, high = _SHADE
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))
