"""Tables as CSV, the way pandas writes them and MLflow's scoring server takes them: names of columns first, then a line for each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelyard_inference.replica.errors import InvalidTensor
from modelyard_inference.runtimes.datatypes import DATATYPES
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.errors import InvalidField

CONTENT_TYPE: Final = "text/csv"
_CHARSETS: Final = ("", "utf-8", "utf8", "us-ascii")
_BOOLEANS: Final = {"true": True, "false": False}


def is_csv(content_type: str) -> bool:
    """Return whether a body of this content type is CSV.

    Raises:
        InvalidField: it is, in another charset than UTF-8.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != CONTENT_TYPE:
        return False
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "")
    if charset not in _CHARSETS:
        raise InvalidField("body", f"is CSV in {charset[:40]!r}: send UTF-8")
    return True


def columns(body: bytes) -> Mapping[str, list[str]]:
    """Return the columns of a table by name, in their order; an index that was written without a name is left out.

    Raises:
        InvalidField: it is no table.
    """
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        rows = list(_rows(lines, len(header)))
    except UnicodeDecodeError as error:
        raise InvalidField("body", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise InvalidField("body", f"is not CSV: {error}") from error
    first = 1 if header[:1] == [""] else 0
    names = header[first:]
    if not names or not all(names) or len(set(names)) != len(names):
        raise InvalidField("body", "must begin with a line of names of columns, each another one")
    return {name: [row[index] for row in rows] for index, name in enumerate(names, first)}


def valued(spec: TensorSpec, given: Any) -> Any:
    """Return texts, nested as they are, as the values of an input.

    Raises:
        InvalidTensor: one of them is none.
    """
    return [valued(spec, item) if isinstance(item, list) else _value(spec, item) for item in given]


def _rows(lines: Any, count: int) -> Iterator[list[str]]:
    for row in lines:
        if not row:  # an empty line
            continue
        if len(row) != count:
            raise InvalidField("body", f"line {lines.line_num} has {len(row)} values for {count} columns")
        yield row


def _value(spec: TensorSpec, text: str) -> Any:
    if spec.datatype == "BYTES":
        return text
    kind = DATATYPES[spec.datatype].dtype.kind
    try:
        if "_" in text:  # between digits, for which Python has a meaning and nobody else
            raise ValueError(text)  # noqa: TRY301  told as the others
        if kind == "b":
            return _BOOLEANS[text.strip().lower()]
        if kind != "f":
            return int(text)
        return float(text) if text.strip() else float("nan")  # as pandas has it
    except (KeyError, ValueError) as error:
        wanted = {"b": "true or false", "f": "a number"}.get(kind, "a whole number")
        raise InvalidTensor(spec.name, f"input '{spec.name}': {text[:40]!r} is not {wanted}") from error
