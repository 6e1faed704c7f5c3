"""The catalogue of error reasons: documented, raised or answered with the right code, and known to the Python client."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from functools import cache

import grpc
import pytest

from modelyard import errors as client_errors
from modelyard.api.common.v1 import errors_pb2
from modelyard_gateway import refusals
from modelyard_kit.errors import DomainError

from .catalogue import SERVICE_NAMES, Reason, reasons, rpcs, source_files

PACKAGES = ("modelyard_kit", *(f"modelyard_{service}" for service in SERVICE_NAMES))
EACH_REASON = pytest.mark.parametrize("reason", reasons(), ids=lambda reason: reason.name)


@cache
def raised() -> dict[str, list[type[DomainError]]]:
    """Classes of domain errors by reason, with every module loaded that defines one."""
    for package in PACKAGES:
        for path in source_files(package):
            if path.name == "errors.py":
                folder = path.parent.relative_to(next(p for p in path.parents if p.name == package).parent)
                importlib.import_module(".".join([*folder.parts, "errors"]))
    found: dict[str, list[type[DomainError]]] = defaultdict(list)
    waiting = list(DomainError.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("modelyard") and hasattr(kind, "reason"):
            found[kind.reason].append(kind)
    return found


@cache
def said_by_envoy() -> dict[str, refusals.Refusal]:
    """What the gateway lets Envoy answer, by reason."""
    fixed = [value for value in vars(refusals).values() if isinstance(value, refusals.Refusal)]
    made = [
        refusals.denied("prod.ml.iris"),
        refusals.too_large(1),
        refusals.rate_limited(1),
        refusals.overloaded(1),
        refusals.no_replica("prod.ml.iris"),
        refusals.no_service("catalog"),
    ]
    return {refusal.reason: refusal for refusal in (*fixed, *made)}


def grpc_code(number: int) -> str:
    """Name of a canonical code."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


@cache
def used_names() -> frozenset[str]:
    """Names that appear in calls and raise statements anywhere in the services."""
    names: set[str] = set()
    for package in PACKAGES:
        for path in source_files(package):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    names |= names_in(node.func)
                elif isinstance(node, ast.Raise) and node.exc:
                    names |= names_in(node.exc)
    return frozenset(names)


def names_in(expression: ast.expr) -> set[str]:
    """`InvalidField.many(...)` uses InvalidField, `errors.AliasMoved(...)` uses AliasMoved."""
    parts = list(ast.walk(expression))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    return names | {part.attr for part in parts if isinstance(part, ast.Attribute)}


def test_every_value_of_the_enum_has_a_comment_that_this_test_can_read() -> None:
    values = {f"ERROR_REASON_{reason.name}" for reason in reasons()}
    assert values | {"ERROR_REASON_UNSPECIFIED"} == set(errors_pb2.ErrorReason.DESCRIPTOR.values_by_name)


@EACH_REASON
def test_documented_with_a_canonical_code_and_a_true_example(reason: Reason) -> None:
    assert reason.code in grpc.StatusCode.__members__
    assert reason.example["reason"] == reason.name
    assert frozenset(reason.example["metadata"]) == reason.metadata, "other keys than `Metadata:`"


@EACH_REASON
def test_raised_by_a_domain_error_with_the_same_code(reason: Reason) -> None:
    kinds = raised().get(reason.name, [])
    if not kinds and reason.name in said_by_envoy():
        return
    assert kinds, f"no DomainError has the reason {reason.name}"
    assert {kind.code for kind in kinds} == {reason.code}
    used = [kind for kind in kinds if kind.__name__ in used_names()]
    assert used, f"{[kind.__name__ for kind in kinds]} is never raised: remove the class or raise it"


def test_what_envoy_refuses_by_itself_is_in_the_catalogue() -> None:
    documented = {reason.name: reason for reason in reasons()}
    for name, refusal in said_by_envoy().items():
        reason = documented[name]
        assert grpc_code(refusal.code) == reason.code
        assert frozenset(refusal.metadata) == reason.metadata, "other keys than `Metadata:`"


def test_every_domain_error_is_in_the_catalogue() -> None:
    assert set(raised()) <= {reason.name for reason in reasons()}


@EACH_REASON
def test_the_client_has_an_exception_for_it(reason: Reason) -> None:
    kind = client_errors.BY_REASON.get(reason.name)
    assert kind is not None, f"modelyard.errors.BY_REASON lacks {reason.name}"
    assert kind.default_code == reason.code


def test_the_client_knows_no_other_reason() -> None:
    assert set(client_errors.BY_REASON) == {reason.name for reason in reasons()}


@pytest.mark.parametrize("rpc", rpcs(), ids=str)
def test_rpcs_document_only_reasons_of_the_catalogue(rpc: object) -> None:
    listed = set(getattr(rpc, "errors", ()))
    assert listed <= {reason.name for reason in reasons()}
