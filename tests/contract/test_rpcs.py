"""Every RPC of every service is served, permitted as its comment says, and reachable from the Python client.

All of it is found from the contracts, so that a new RPC is covered without a change here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest

from modelyard_kit.authorization import AUTHENTICATED, PUBLIC, SERVICES, Requires

from .catalogue import SERVICE_NAMES, Rpc, rpcs, service_module, source_files

if TYPE_CHECKING:
    from modelyard_kit.authorization import AccessTable

EACH_RPC = pytest.mark.parametrize("rpc", rpcs(), ids=str)
EACH_SERVICE = pytest.mark.parametrize("service", SERVICE_NAMES)


def for_services(rpc: Rpc) -> bool:
    """Whether only services and gateways of the same installation may call it."""
    return "For services only." in rpc.comment or "For gateways only." in rpc.comment


@cache
def servicer(service: str) -> type:
    """The handwritten class that serves a contract."""
    stubs = importlib.import_module(f"{service_module(service).__name__}_grpc")
    base = getattr(stubs, f"{service.title()}ServiceServicer")
    module = importlib.import_module(f"modelyard_{service}.servicer")
    classes = [
        c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, base) and c is not base
    ]
    assert len(classes) == 1, f"modelyard_{service}.servicer has {classes}; one class serves one contract"
    return classes[0]


@cache
def handwritten(service: str) -> dict[str, object]:
    """What the class that serves a contract has, also from its parts in other files, but not from the generated class."""
    parts = [
        part for part in servicer(service).__mro__ if part.__module__.startswith(f"modelyard_{service}.")
    ]
    return {name: value for part in reversed(parts) for name, value in vars(part).items()}


@cache
def access_table(service: str) -> AccessTable:
    """The access table of a service; what resolves its resources is not asked anything here."""
    make = importlib.import_module(f"modelyard_{service}.access").access_table
    return make(*(MagicMock() for _ in inspect.signature(make).parameters))  # type: ignore[no-any-return]


@cache
def privileges_checked_in(service: str) -> frozenset[str]:
    """Privileges that a service asks for by name anywhere, `Privilege.DEPLOY`."""
    return frozenset(
        attribute for path in source_files(f"modelyard_{service}") for attribute in attributes(path)
    )


@cache
def used_by_client() -> frozenset[str]:
    """Names that the client takes from objects, `connection.catalog.CreateModel`."""
    files = [path for path in source_files("modelyard") if "api" not in path.parts]
    return frozenset(attribute for path in files for attribute in attributes(path))


def attributes(path: object) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_the_contracts_were_found() -> None:
    assert {rpc.service for rpc in rpcs()} == set(SERVICE_NAMES)


@EACH_RPC
def test_served(rpc: Rpc) -> None:
    """The generated base class answers UNIMPLEMENTED, so each method must be written in the servicer."""
    method = handwritten(rpc.service).get(rpc.name)
    assert method is not None, f"{servicer(rpc.service).__name__} has no {rpc.name}"
    streams = rpc.method.server_streaming
    wanted = inspect.isasyncgenfunction if streams else inspect.iscoroutinefunction
    assert wanted(method), f"{rpc.name} must be {'an async generator' if streams else 'a coroutine'}"


@EACH_SERVICE
def test_nothing_is_served_or_permitted_that_the_contract_lacks(service: str) -> None:
    names = {rpc.name for rpc in rpcs() if rpc.service == service}
    served = {name for name in handwritten(service) if not name.startswith("_")}
    assert served <= names
    assert set(access_table(service)) <= names


@EACH_RPC
def test_permitted_as_its_comment_says(rpc: Rpc) -> None:
    rule = access_table(rpc.service).get(rpc.name)
    assert rule is not None, f"modelyard_{rpc.service}.access has no rule for {rpc.name}"
    if for_services(rpc):
        assert rule == SERVICES
    elif "Needs no JWT" in rpc.comment:
        assert rule == PUBLIC
    elif isinstance(rule, Requires):
        # Reaching into a container needs its USE privilege by a general rule, which comments do not repeat.
        wanted = {rpc.privilege} if rpc.privilege else {"USE_CATALOG", "USE_SCHEMA"}
        assert rule.privilege.name in wanted
    else:
        # Known from the token alone, or decided by the rules, which must then ask for the privilege themselves.
        assert rule == AUTHENTICATED
        assert not rpc.privilege or rpc.privilege in privileges_checked_in(rpc.service)


@EACH_RPC
def test_client_streams_are_not_resolved_from_a_first_request(rpc: Rpc) -> None:
    """The access table sees one request; a stream's permission is the business of the rules."""
    if rpc.method.client_streaming:
        assert access_table(rpc.service)[rpc.name] == AUTHENTICATED


@pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if not for_services(rpc)], ids=str)
def test_in_the_python_client(rpc: Rpc) -> None:
    assert rpc.name in used_by_client(), f"no module of the client calls {rpc}"


@EACH_RPC
def test_creates_can_be_repeated_and_lists_are_paged(rpc: Rpc) -> None:
    request = {field.name for field in rpc.method.input_type.fields}
    response = {field.name for field in rpc.method.output_type.fields}
    if rpc.name.startswith("Create") and "the same grant twice is one" not in rpc.comment:
        assert "request_id" in request
    if "page_token" in request:
        assert "page_size" in request
        assert "next_page_token" in response
