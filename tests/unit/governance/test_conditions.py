"""Expressions over facts: what is let in, what is met, and that nothing runs for long."""

from __future__ import annotations

import time

import pytest

from modelyard_governance.conditions import LIST_LENGTH, check, evaluate
from modelyard_governance.models import Condition
from modelyard_kit.errors import InvalidField

FACTS = {
    "version": {"name": "prod.ml.iris/1", "number": 1, "author": "ada"},
    "metrics": {"accuracy": 0.93, "by-class": [0.9, 0.8], "note": "fine"},
    "tags": {"stage": "gold"},
    "tests": {"run": True, "passed": False, "failed": ["score_py"]},
    "scan": {"done": True, "clean": True, "findings": 0},
    "signatures": [{"signer": "CN=lab", "trusted": True, "trust_root": "lab"}],
    "lineage": {"present": True, "datasets": ["s3://lake/iris"], "runs": [], "versions": []},
    "approvals": {"state": "PENDING", "count": 0, "required": 1, "reviewers": []},
}


def result(expression: str) -> tuple[bool, str]:
    condition = Condition("it", expression)
    check(condition, "expression")
    (found,) = evaluate([condition], FACTS)
    return found.met, found.problem


@pytest.mark.parametrize(
    "expression",
    [
        "metrics.accuracy >= 0.9",
        "metrics.accuracy < 1",
        "metrics['by-class'].all(one, one > 0.7)",
        "scan.clean && scan.findings == 0",
        "signatures.exists(s, s.trusted && s.trust_root == 'lab')",
        "lineage.present && size(lineage.datasets) > 0",
        "'stage' in tags && tags.stage in ['gold', 'silver']",
        "!has(metrics.f1) || metrics.f1 > 0.5",
        "version.name.startsWith('prod.')",
    ],
)
def test_what_is_met(expression: str) -> None:
    assert result(expression) == (True, "")


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("tests.passed", "is false"),
        ("metrics.f1 > 0.5", "there is no f1"),
        ("metrics.note > 1", "No such overload"),
        ("metrics.accuracy", "is 0.93, which is neither true nor false"),
        ("1 / 0 > 1", "zero"),
        ("signatures[9].trusted", ""),
    ],
)
def test_what_is_not_met_says_why(expression: str, problem: str) -> None:
    met, said = result(expression)
    assert not met
    assert said.startswith(f"{expression}: ")
    assert problem in said


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("1 +", "is not CEL"),
        ("model.accuracy > 1", "names model"),
        ("os.system('x')", "names os"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "more than 2"),
    ],
)
def test_what_can_never_be_evaluated_is_refused(expression: str, problem: str) -> None:
    with pytest.raises(InvalidField, match=problem) as refusal:
        check(Condition("it", expression), "policy.conditions[0].expression")
    assert refusal.value.metadata["field"] == "policy.conditions[0].expression"


def test_the_worst_expression_over_the_longest_lists_ends_soon() -> None:
    longest = {"metrics": {"a": [1.0] * LIST_LENGTH}}
    numbers = ",".join(["1"] * 900)
    condition = Condition("it", f"metrics.a.all(x, [{numbers}].all(y, x * double(y) > 0.0))")
    check(condition, "expression")
    begin = time.monotonic()
    assert evaluate([condition], longest)[0].met
    assert time.monotonic() - begin < 10  # a fraction of a second, on a machine that does other things
