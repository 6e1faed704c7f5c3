"""How several settings are written in one option of the command line: `rows=256 delay=0.002`, and words that stand alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
ABOVE_ZERO = "NUMBER (1 or more)"
_SIZE = re.compile(r"(\d+)([KMGT]iB|B?)")


@dataclass(frozen=True)
class Setting:
    """What may stand in an option.

    Args:
        field: Name of what it sets, in the class of `modelyard.types`.
        read: Returns the value of its text; a ValueError says that it is none.
        wanted: What stands behind the `=`, for people; empty for a word that stands alone and turns something on.
    """

    field: str
    read: Callable[[str], Any]
    wanted: str = "NUMBER"


def word(field: str) -> Setting:
    """A setting that is on if its name is there."""
    return Setting(field, bool, "")


def seconds(text: str) -> timedelta:
    """The duration of a number of seconds."""
    return timedelta(seconds=float(text))


def size(text: str) -> int:
    """The bytes of a size, `512MiB` or `512`."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(text)
    return int(found[1]) * _UNITS[found[2]]


def whole(text: str) -> int:
    """A whole number that is not below zero."""
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def positive(text: str) -> int:
    """A whole number above zero: where zero would mean that there is no bound, which is said by leaving it out."""
    found = whole(text)
    if found == 0:
        raise ValueError(text)
    return found


def percent(text: str) -> int:
    """A whole number of 0 to 100."""
    found = whole(text)
    if found > 100:
        raise ValueError(text)
    return found


def parse_settings(words: Iterable[str], known: Mapping[str, Setting]) -> dict[str, Any]:
    """Return the values that words give, by field.

    Raises:
        typer.BadParameter: one is no setting, has no such value, or comes twice; the message says what may stand there.
    """
    found: dict[str, Any] = {}
    for each in words:
        name, equals, value = each.partition("=")
        setting = known.get(name)
        if setting is None or bool(equals) != bool(setting.wanted):
            raise typer.BadParameter(f"{each!r} is none of {', '.join(map(_form, known, known.values()))}")
        if setting.field in found:
            raise typer.BadParameter(f"{name} is given twice")
        try:
            found[setting.field] = setting.read(value) if equals else True
        except (ValueError, OverflowError):
            raise typer.BadParameter(f"{each!r} is not {_form(name, setting)}") from None
    return found


def _form(name: str, setting: Setting) -> str:
    return f"{name}={setting.wanted}" if setting.wanted else name
