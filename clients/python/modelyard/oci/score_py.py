"""What a score.py defines, read from its syntax and never by running it."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TypeAlias

MAX_BYTES = 1024 * 1024

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class ScoreSyntaxError(Exception):
    """It is not Python."""


@dataclass(frozen=True)
class Parameters:
    """The formal arguments of a function: `first` is the first one that takes a position, `required` those without default."""

    first: str | None
    required: tuple[str, ...]
    keyword_only: tuple[str, ...]
    variadic: str | None


@dataclass(frozen=True)
class Score:
    """The functions at the top level of a score.py, by name."""

    functions: dict[str, Parameters]


def parse(source: bytes) -> Score:
    """Read the functions of a module.

    Raises:
        ScoreSyntaxError: it is no Python, or nothing a parser could get through.
    """
    if len(source) > MAX_BYTES:
        raise ScoreSyntaxError(f"the file is larger than {MAX_BYTES:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a text is no fault of the artifact
            module = ast.parse(source, filename="score.py")
    except SyntaxError as error:
        raise ScoreSyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise ScoreSyntaxError("it is nested too deeply to be parsed") from error
    except ValueError as error:
        raise ScoreSyntaxError(str(error)) from error
    return Score({function.name: _parameters(function.args) for function in _functions(module)})


def _functions(module: ast.Module) -> list[_Function]:
    """Functions at the top level, also inside `if` and `try` there; of one name the last counts."""
    found: list[_Function] = []
    left: list[ast.stmt] = list(reversed(module.body))
    while left:
        statement = left.pop()
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(statement)
        elif isinstance(statement, ast.If):
            left += reversed([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handled = [inner for handler in statement.handlers for inner in handler.body]
            left += reversed([*statement.body, *handled, *statement.orelse, *statement.finalbody])
    return found


def _parameters(arguments: ast.arguments) -> Parameters:
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [
        argument.arg
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return Parameters(
        first=positional[0] if positional else None,
        required=tuple(required),
        keyword_only=tuple(argument.arg for argument in arguments.kwonlyargs),
        variadic=arguments.vararg.arg if arguments.vararg else None,
    )
