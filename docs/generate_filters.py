# ruff: noqa: INP001 - a script, not a part of a package
"""Write the tables of fields into docs/filters.md from the tables of the services; with `--check`, only say whether they are fresh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelyard_artifact.fields import LISTS as ARTIFACT
from modelyard_catalog.fields import LISTS as CATALOG
from modelyard_governance.fields import LISTS as GOVERNANCE
from modelyard_inference.fields import LISTS as INFERENCE
from modelyard_kit.filters import AnyField, Field, FieldType, ListFields, MapField

TARGET = Path(__file__).parent / "filters.md"
LISTS = {**CATALOG, **ARTIFACT, **GOVERNANCE, **INFERENCE}
_BEGIN = "<!-- made by docs/generate_filters.py -->\n"
_END = "<!-- end -->\n"


def render() -> str:
    """Return the part of the document that is made from code."""
    return (
        _BEGIN + "".join(f"\n{_table(name, fields)}" for name, fields in sorted(LISTS.items())) + "\n" + _END
    )


def _table(name: str, fields: ListFields) -> str:
    default = fields.default_order or fields.unique
    order = f"In the order of `{default}` by default"
    if fields.orders:
        order = f"In the order of `{default}`: it lies in what is listed, so only `{fields.orders[0]}` may be named"
    rows = "".join(f"| {_shown(key, field)} | {_type(field)} |\n" for key, field in fields.fields.items())
    return f"### {name}\n\n{order}.\n\n| field | type |\n|---|---|\n{rows}"


def _shown(name: str, field: AnyField) -> str:
    if not isinstance(field, MapField):
        return f"`{name}`"
    return " ".join(f"`{name}.{key}`" for key in field.known or ("<key>",))


def _type(field: AnyField) -> str:
    text = field.type.value
    if field.type is FieldType.ENUM:
        text += ": " + ", ".join(f"`{value}`" for value in field.values)
    may_be_null = isinstance(field, MapField) or (isinstance(field, Field) and not field.required)
    return text + ("; may be NULL" if may_be_null else "")


def _renewed(document: str) -> str:
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + render() + after


def main() -> int:
    """Write the tables, or check them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if the document is stale"
    )
    document = TARGET.read_text(encoding="utf-8")
    if not parser.parse_args().check:
        TARGET.write_text(_renewed(document), encoding="utf-8")
        return 0
    fresh = _renewed(document) == document
    if not fresh:
        sys.stderr.write(f"{TARGET.name} is stale: run `python docs/generate_filters.py`\n")
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main())
