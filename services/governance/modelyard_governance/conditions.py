"""Required evidence: expressions in CEL (Common Expression Language) over facts. Pure: no I/O, and every evaluation is bounded.

An expression is short and has at most two loops (`all`, `exists`, `exists_one`, `map`, `filter`), and every list among the facts
is short too; so the worst one takes a fraction of a second, and nothing in CEL runs longer than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from modelyard_governance.gate_models import ConditionResult, Facts
from modelyard_governance.models import Condition
from modelyard_kit.errors import InvalidField

LOOPS = 2
LIST_LENGTH = 100
"""Elements of any list among the facts."""
NAMES = frozenset(
    ("version", "metrics", "tags", "tests", "scan", "signatures", "lineage", "card", "approvals", "now")
)
"""What an expression can name."""
_LOOP = re.compile(r"\.\s*(all|exists|exists_one|map|filter)\s*\(")
_LOOP_NAME = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")
# What the library raises for an expression that cannot be evaluated on these facts; it documents no common base.
_FAILURES = (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError)


def check(condition: Condition, field: str) -> None:
    """Refuse an expression that can never be evaluated.

    Raises:
        InvalidField: it is not CEL, loops too often, or names what is no fact.
    """
    if len(_LOOP.findall(condition.expression)) > LOOPS:
        raise InvalidField(field, f"has more than {LOOPS} of all, exists, exists_one, map and filter")
    try:
        program = _program(condition)
    except _FAILURES as error:
        raise InvalidField(field, f"is not CEL: {error}") from error
    unknown = set(program.variables()) - NAMES - set(_LOOP_NAME.findall(condition.expression))
    if unknown:
        known = ", ".join(sorted(NAMES))
        raise InvalidField(field, f"names {', '.join(sorted(unknown))}; the facts are {known}")


def evaluate(conditions: Iterable[Condition], facts: Facts) -> tuple[ConditionResult, ...]:
    """Evaluate every condition; one that fails, or is no bool, is not met."""
    return tuple(_evaluate(condition, facts) for condition in conditions)


def _evaluate(condition: Condition, facts: Facts) -> ConditionResult:
    try:
        value = _program(condition).execute(dict(facts))
    except KeyError as error:
        return _unmet(condition, f"there is no {error.args[0] if error.args else error}")
    except _FAILURES as error:
        return _unmet(condition, str(error).split(".")[0])
    if value is True:
        return ConditionResult(condition.name, met=True)
    return _unmet(
        condition, "is false" if value is False else f"is {value!r}, which is neither true nor false"
    )


def _program(condition: Condition) -> Any:
    import cel  # with a command line of its own, and the libraries of that: a tenth of the time the service takes to start

    return cel.compile(condition.expression)


def _unmet(condition: Condition, problem: str) -> ConditionResult:
    return ConditionResult(condition.name, met=False, problem=f"{condition.expression}: {problem}")
