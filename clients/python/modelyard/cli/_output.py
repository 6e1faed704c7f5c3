"""What verbs print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="Table for people or JSON for programs.")]
TABLE = Format.TABLE

_PIPE_WIDTH = 400
_STYLES = {
    **dict.fromkeys(("READY", "ACTIVE", "APPROVED", "ALLOW", "yes"), "green"),
    **dict.fromkeys(("FAILED", "REJECTED", "DENY", "STOPPED", "CRASH_LOOP"), "red"),
    **dict.fromkeys(("PENDING", "CREATING", "UPDATING", "STARTING", "DRAINING", "DELETING"), "yellow"),
}


def show_rows(rows: Sequence[Any], columns: Sequence[str], output: Format, *, empty: str = "none") -> None:
    """Print dataclasses as a table of these fields (`a.b` reaches into a field), or all fields as JSON."""
    if output is Format.JSON:
        show_json([plain(row) for row in rows])
    elif not rows:
        typer.echo(empty, err=True)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in headings(columns):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(_field(row, column)) for column in columns))
        _console().print(table)


def show_one(row: Any, output: Format) -> None:
    """Print every field of a dataclass, or the dict of values given."""
    if output is Format.JSON:
        show_json(plain(row))
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    items = (
        row.items()  # names of somebody's own stay as they are
        if isinstance(row, Mapping)
        else ((f.name.replace("_", " "), getattr(row, f.name)) for f in dataclasses.fields(row))
    )
    for name, value in items:
        if brief(value):
            table.add_row(Text(str(name)), _cell(value))
    _console().print(table)


def draw(drawn: Tree | Table) -> None:
    """Print a tree or a table."""
    _console().print(drawn)


def style_of(word: str) -> str:
    """The colour of a state; empty if it has none."""
    return _STYLES.get(word, "")


def show_json(value: Any) -> None:
    """Print JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """The value as JSON can hold it: times as RFC 3339, durations in seconds."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, StrEnum) else value


def headings(columns: Sequence[str]) -> list[str]:
    """What stands above columns: the field that a path begins with, or what follows where several begin with the same."""
    paths = [column.replace("_", " ").split(".") for column in columns]
    often = Counter(path[0] for path in paths)
    return [path[1] if often[path[0]] > 1 and path[1:] else path[0] for path in paths]


def _field(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = getattr(row, name)
    return row


def _cell(value: Any) -> Text:
    text = brief(value)
    return Text(text, style=style_of(text))


def brief(value: Any) -> str:
    """A value of a field as a table has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, Mapping):
        return "  ".join(f"{key}={_short(item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return (
            "\n".join(brief(item) for item in value)
            if _deep(value)
            else ", ".join(brief(item) for item in value)
        )
    if dataclasses.is_dataclass(value):
        return _text_of_dataclass(value)
    return str(value)


def _text_of_dataclass(value: Any) -> str:
    shown = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    named = {n: i for n, i in shown.items() if i not in (None, "", (), {}, False) and brief(i)}
    if set(shown) == {"name", "datatype", "shape"}:
        return f"{value.name}: {value.datatype}{list(value.shape)}"
    if set(shown) == {"methods"}:
        return "\n".join(brief(method) for method in value.methods)
    if "inputs" in shown:
        return f"{value.name}({brief(_line(value.inputs))}) -> {_line(value.outputs)}"
    return "  ".join(f"{name}={_short(item)}" for name, item in named.items())


def _line(specs: Sequence[Any]) -> str:
    return ", ".join(brief(spec) for spec in specs)


def _deep(value: tuple[Any, ...]) -> bool:
    return any(dataclasses.is_dataclass(item) for item in value)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(plain(value), ensure_ascii=False)
    return brief(value)


def _console() -> Console:
    """Standard output as it is now; wide where nobody looks at a screen, so that pipes get whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
