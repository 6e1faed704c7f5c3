"""Every failpoint that the code names is used by a fault test: one that is not proves nothing and only costs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from .catalogue import ROOT, SERVICE_NAMES, source_files

PACKAGES = ("modelyard_kit", "modelyard_gateway", *(f"modelyard_{service}" for service in SERVICE_NAMES))


def pattern(expression: ast.expr) -> str:
    """Return a pattern of the names that an expression can have: `f"inference.before_{name}"` begins so."""
    if isinstance(expression, ast.Constant):
        return re.escape(str(expression.value))
    if not isinstance(expression, ast.JoinedStr):
        return ""
    parts = (re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in expression.values)
    return "".join(parts)


def failpoints() -> Iterator[str]:
    for package in PACKAGES:
        for path in source_files(package):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                if is_call and node.func.id == "failpoint":  # type: ignore[attr-defined]
                    yield pattern(node.args[0])  # type: ignore[attr-defined]


def used() -> Iterator[tuple[str, str]]:
    """Yield the texts in tests that crash or hold something, as they are and as patterns."""
    for folder in ("faults", "conformance"):
        for path in (ROOT / "tests" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value, re.escape(node.value)
                elif isinstance(node, ast.JoinedStr):
                    yield "", pattern(node)


USED = tuple(used())


def test_failpoints_were_found() -> None:
    found = set(failpoints())
    assert len(found) > 10
    assert "" not in found, "a failpoint has a name that can be read in the code"


@pytest.mark.parametrize("name", sorted(set(failpoints())))
def test_used_by_a_fault_test(name: str) -> None:
    if ".+" in name:  # one of a family, as a test that makes their names in the same way
        sample = name.replace("\\", "").replace(".+", "x_x")
        found = any(".+" in form and re.fullmatch(form, sample) for _, form in USED)
    else:
        found = any(re.search(rf"(^|[^.\w]){name}($|[^.\w])", text) for text, _ in USED)
    assert found, f"no test in tests/faults or tests/conformance uses {name}"
