"""metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from modelyard.cli._output import TABLE, Format, Output, show_one
from modelyard.cli._session import connect, pairs
from modelyard.cli.catalog import Reference
from modelyard.types import CustomMetadata, MetadataCategory, ModelMetadata

metadata = typer.Typer(help="What versions are for and how they were made.", no_args_is_help=True)

_TEXTS = ("use_case", "framework", "framework_version", "algorithm")
_OBJECTS = ("hyperparameters", "test_results")
_FIELDS = f"{', '.join(_TEXTS)}, {', '.join(f'{name}[.NAME]' for name in _OBJECTS)}, custom.NAME"


@metadata.command("show")
def show(reference: Reference, output: Output = TABLE) -> None:
    """Show the metadata of a version."""
    with connect() as client:
        _show(client.versions.get(reference).metadata, output)


@metadata.command("set")
def set_metadata(
    reference: Reference,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUE...",
            help=f"{_FIELDS}. Values of hyperparameters and test results are JSON or text; nothing after = clears.",
        ),
    ],
    category: Annotated[
        MetadataCategory | None,
        typer.Option("--category", case_sensitive=False, help="What the custom facts set are about."),
    ] = None,
    description: Annotated[
        str, typer.Option("--description", "-d", help="What the custom facts set mean.")
    ] = "",
    output: Output = TABLE,
) -> None:
    """Change metadata of a version; what is not named stays, and nobody's change in between is lost."""
    wanted = pairs(changes, "FIELD=VALUE")
    _apply(ModelMetadata(), wanted, category, description)  # wrong use is told before anything is read
    with connect() as client:
        version = client.versions.get(reference)
        after = _apply(version.metadata, wanted, category, description)
        _show(client.versions.update(version.name, metadata=after, etag=version.etag).metadata, output)


def _apply(
    before: ModelMetadata, wanted: dict[str, str], category: MetadataCategory | None, description: str
) -> ModelMetadata:
    for field, value in wanted.items():
        name, dot, key = field.partition(".")
        change: dict[str, Any]
        if name in _TEXTS and not dot:
            change = {name: value}
        elif name in _OBJECTS and bool(key) == bool(dot):
            change = {name: _object(getattr(before, name), field, key, value)}
        elif name == "custom" and key:
            kept = tuple(fact for fact in before.custom if fact.key != key)
            fact = (CustomMetadata(key, value, category, description),) if value else ()
            change = {"custom": kept + fact}
        else:
            raise typer.BadParameter(f"{field!r} is none of {_FIELDS}", param_hint="FIELD=VALUE")
        before = replace(before, **change)
    return before


def _object(before: Any, field: str, key: str, text: str) -> dict[str, Any]:
    """An object after one of its values, or all of it, was given."""
    if key:
        rest = {name: value for name, value in before.items() if name != key}
        return {**rest, key: _value(text)} if text else rest
    value = _value(text) if text else {}
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f"{field} is an object; write {field}='{{\"C\": 1}}', or {field}.C=1", param_hint="FIELD=VALUE"
        )
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(found: ModelMetadata, output: Format) -> None:
    if output is Format.JSON:
        show_one(found, output)
    elif found == ModelMetadata():
        typer.echo("no metadata", err=True)
    else:
        show_one(_lines(found), output)


def _lines(found: ModelMetadata) -> dict[str, Any]:
    """One line for each fact."""
    lines: dict[str, Any] = {name.replace("_", " "): getattr(found, name) for name in _TEXTS}
    for name in _OBJECTS:
        lines.update({f"{name}.{key}": _text(value) for key, value in getattr(found, name).items()})
    for fact in found.custom:
        about = [f"[{fact.category}]"] if fact.category else []
        about += [f"({fact.description})"] if fact.description else []
        lines[f"custom.{fact.key}"] = " ".join([fact.value, *about])
    return lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
