"""Names as people type them, and the one parser for them that every part of Modelyard uses.

A model is `catalog.schema.model`. A version reference adds which version is meant:

    prod.ml_team.iris/3            the version with that number
    prod.ml_team.iris@champion     the version that the alias points at
    prod.ml_team.iris@1.4.0        the version with that label
    prod.ml_team.iris              the default version

each also with the prefix `models:/`, as MLflow writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "models:/"
MAX_NUMBER = 2**63 - 1

_PART = re.compile(r"[A-Za-z0-9_-]{1,63}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_LABEL = re.compile(r"(?![0-9]+$)[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_LEVELS = {1: "catalog", 2: "catalog.schema", 3: "catalog.schema.name"}


class InvalidReference(ValueError):
    """The text is no name or version reference; the message says what is wrong with which part."""


@dataclass(frozen=True)
class VersionReference:
    """Which version of which model: by number, by alias or label (`alias` holds either), or with neither the default one."""

    model: str
    number: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        """Return the reference in its shortest form, without the prefix."""
        if self.number is not None:
            return f"{self.model}/{self.number}"
        return f"{self.model}@{self.alias}" if self.alias else self.model


def parse_name(text: str, parts: int) -> tuple[str, ...]:
    """Split a dotted name into exactly `parts` parts.

    Raises:
        InvalidReference: a wrong number of parts, or a part that is not 1 to 63 letters, digits, `_`, `-`.
    """
    split = tuple(text.split("."))
    if len(split) != parts:
        raise InvalidReference(f"{_shown(text)} has {len(split)} parts; write {_LEVELS[parts]}")
    for part in split:
        if not _PART.fullmatch(part):
            raise InvalidReference(
                f"{_shown(part)} in {_shown(text)} is not a name: use 1 to 63 letters, digits, '_' or '-'"
            )
    return split


def parse_alias(text: str) -> str:
    """Return `text` if it has the form of an alias.

    Raises:
        InvalidReference: it has not.
    """
    if not _ALIAS.fullmatch(text):
        raise InvalidReference(
            f"{_shown(text)} is not an alias: start with a letter, then letters, digits, '_' or '-', at most 63"
        )
    return text


def parse_label(text: str) -> str:
    """Return `text` if it has the form of a label of a version. Every alias has it too.

    Raises:
        InvalidReference: it has not.
    """
    if not _LABEL.fullmatch(text):
        raise InvalidReference(
            f"{_shown(text)} is not a label: use letters, digits, '.', '_', '-' or '+', at most 63, starting with a letter"
            " or digit, not digits alone"
        )
    return text


def parse_version_reference(text: str) -> VersionReference:
    """Parse a version reference, with or without the prefix `models:/`.

    Raises:
        InvalidReference: the model's name, the number, the alias or the label is malformed.
    """
    body = text.removeprefix(PREFIX)
    if "@" in body:
        model, _, alias = body.partition("@")
        parse_name(model, 3)
        if not _LABEL.fullmatch(alias):
            raise InvalidReference(
                f"{_shown(alias)} in {_shown(text)} is not an alias or label: write it as in {_shown(model)}@champion"
            )
        return VersionReference(model, alias=alias)
    model, slash, number = body.partition("/")
    parse_name(model, 3)
    if not slash:
        return VersionReference(model)
    if not _NUMBER.fullmatch(number) or int(number) > MAX_NUMBER:
        raise InvalidReference(f"{_shown(number)} in {_shown(text)} is not a version number: write 1, 2, 3 …")
    return VersionReference(model, number=int(number))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
