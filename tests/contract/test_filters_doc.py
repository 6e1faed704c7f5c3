"""Every list of every service takes filters, and docs/filters.md has the fields that the services declare."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from modelyard_kit.filters import ListFields

from .catalogue import ROOT, SERVICE_NAMES, Rpc, rpcs

LISTS = [rpc for rpc in rpcs() if rpc.name.startswith("List")]


def fields_of(rpc: Rpc) -> ListFields:
    lists = importlib.import_module(f"modelyard_{rpc.service}.fields").LISTS
    assert rpc.name in lists, f"modelyard_{rpc.service}.fields declares no fields of {rpc.name}"
    return lists[rpc.name]  # type: ignore[no-any-return]


def test_the_document_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_filters.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rpc", LISTS, ids=str)
def test_every_list_is_filtered_ordered_and_paged(rpc: Rpc) -> None:
    fields = fields_of(rpc)
    asked = {field.name for field in rpc.method.input_type.fields}
    assert {"filter", "page_size", "page_token"} <= asked
    assert "next_page_token" in {field.name for field in rpc.method.output_type.fields}
    # Only a list whose order lies in what it is may do without.
    assert "order_by" in asked or fields.orders
    assert {"INVALID_FIELD", "LIMIT_EXCEEDED"} <= set(rpc.errors)


def test_nothing_is_declared_that_is_no_list() -> None:
    declared = {
        name
        for service in SERVICE_NAMES
        for name in importlib.import_module(f"modelyard_{service}.fields").LISTS
    }
    assert declared == {rpc.name for rpc in LISTS}
