"""Rows of data from JSON or CSV."""

from __future__ import annotations

import csv
import json
from typing import Any

import typer

from modelyard.cli._session import read_text
from modelyard.errors import MissingExtra


class CsvTable:
    """CSV with column names; behaves as a DataFrame where the client takes one."""

    def __init__(self, names: list[str], rows: list[list[Any]]) -> None:
        self.columns = names
        self._rows = rows

    def __getitem__(self, name: str) -> Any:
        at = self.columns.index(name)
        return _Column([row[at] for row in self._rows])

    def to_numpy(self) -> Any:
        """All values, one row a line."""
        return _array(self._rows)

    def to_pandas(self) -> Any:
        """A DataFrame, which models fitted with column names want; itself where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            return self
        return pd.DataFrame(self._rows, columns=self.columns)


class _Column:
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def to_numpy(self) -> Any:
        return _array(self._values)


def read_rows(path: str, option: str) -> Any:
    """The rows in a file (`-` is standard input), as predictions take them.

    JSON is a list of rows, or an object of arrays by tensor name, if wanted under `inputs`. Anything else is CSV; a first
    line that is not all numbers names the columns.
    """
    text = read_text(path, option)
    if not text.strip():
        raise typer.BadParameter(f"{path} is empty", param_hint=option)
    if path.lower().endswith(".csv") or text.lstrip()[0] not in "[{":
        return _from_csv(text, path, option)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}", param_hint=option) from error
    if isinstance(data, dict) and set(data) == {"inputs"}:
        data = data["inputs"]
    return data


def read_example(path: str, option: str) -> Any:
    """The rows in a file as a model itself takes them, or None if there is no path."""
    rows = read_rows(path, option) if path else None
    return rows.to_pandas() if isinstance(rows, CsvTable) else rows


def _from_csv(text: str, path: str, option: str) -> Any:
    lines = [line for line in csv.reader(text.splitlines()) if line]
    width = len(lines[0])
    for number, line in enumerate(lines, 1):
        if len(line) != width:
            raise typer.BadParameter(
                f"{path}: row {number} has {len(line)} values, row 1 has {width}", param_hint=option
            )
    rows = [[_value(cell) for cell in line] for line in lines]
    if all(isinstance(cell, (int, float)) for cell in rows[0]):
        return _array(rows)
    if len(rows) == 1:
        raise typer.BadParameter(f"{path} has column names and no rows", param_hint=option)
    return CsvTable([cell.strip() for cell in lines[0]], rows[1:])


def _value(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _array(values: list[Any]) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtra("numpy", "numpy") from error
    return np.array(values)
