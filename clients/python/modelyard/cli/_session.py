"""The client that verbs use, and the arguments many of them share."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelyard.client import Client

_selected: ContextVar[str] = ContextVar("modelyard_context", default="")

Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Show at most so many rows.")]
Description = Annotated[str, typer.Option("--description", "-d", help="Free text.")]
Etag = Annotated[str, typer.Option("--etag", help="Only if nobody changed it since you read this.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Tag; may be repeated.")]


def select_context(name: str) -> None:
    """Use a saved context instead of the current one."""
    _selected.set(name)


def selected_context() -> str:
    """The context chosen with `--context`; empty when none was."""
    return _selected.get()


@contextmanager
def connect() -> Iterator[Client]:
    """The client of the chosen context, closed at the end."""
    from modelyard.client import Client

    client = Client.from_context(_selected.get() or None)
    try:
        yield client
    finally:
        client.close()


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """`KEY=VALUE` arguments as a dict."""
    result: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
        result[key] = value
    return result


def numbers(texts: Sequence[str] | None, option: str) -> dict[str, int]:
    """`KEY=NUMBER` arguments as a dict."""
    result: dict[str, int] = {}
    for key, value in pairs(texts, option).items():
        if not value.isdecimal():
            raise typer.BadParameter(f"{value!r} in '{key}={value}' is not a number", param_hint=option)
        result[key] = int(value)
    return result


def values(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """`KEY=VALUE` arguments as a dict; a value that is JSON is taken as that, any other as text.

    What begins like JSON and is none is refused: it was meant to be, and the shell took the quotes.
    """
    result: dict[str, Any] = {}
    for key, value in pairs(texts, option).items():
        try:
            result[key] = json.loads(value)
        except ValueError as error:
            if value.startswith(("[", "{", '"')):
                problem = f"{key}: {value} begins like JSON and is none ({error}); put '{key}=…' in quotes"
                raise typer.BadParameter(problem, param_hint=option) from None
            result[key] = value
    return result


def read_text(path: str, option: str) -> str:
    """The content of a file, or of standard input for `-`."""
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint=option) from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not UTF-8 text", param_hint=option) from error
