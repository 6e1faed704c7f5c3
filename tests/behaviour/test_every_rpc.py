"""No RPC without a rule: each of every service, with no token, wrong tokens, and a token of somebody who was given nothing.

Requests are made up from the contracts, so that a new RPC is tried without a change here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.rpc import error_details_pb2, status_pb2

from modelyard_kit.auth import Principal
from modelyard_kit.authorization import PUBLIC, SERVICES, Requires
from tests.contract.catalogue import SERVICE_NAMES, Rpc, rpcs
from tests.contract.test_rpcs import access_table
from tests.framework.stack import InProcess
from tests.framework.tokens import Issuer
from tests.framework.waiting import eventually

DIGEST = "sha256:" + "0" * 64
ID = "01980000-0000-7000-8000-000000000000"
# A name of everything that has one, with the type of resource that it is.
NAMES = [("", 1), ("p", 2), ("p.q", 3), ("p.q.r", 4), ("p.q.r", 6), ("p.q.r/1", 5)]
WATCH_SECONDS = 20.0
_OPTIONAL = re.compile(r"^(filter|order_by|page_token|.*_id)$")


class Door:
    """The four services of a stack, called by the names of their RPCs."""

    def __init__(self, stack: InProcess) -> None:
        self._channels = {name: grpc.aio.insecure_channel(stack.home.socket(name)) for name in SERVICE_NAMES}

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def reason(self, rpc: Rpc, request: Any, token: str = "") -> str:
        """Call and return the reason of the refusal, or an empty text."""
        path = f"/{rpc.method.containing_service.full_name}/{rpc.name}"
        answers = message_factory.GetMessageClass(rpc.method.output_type)
        requests, streams = rpc.method.client_streaming, rpc.method.server_streaming
        shape = f"{'stream' if requests else 'unary'}_{'stream' if streams else 'unary'}"
        call = getattr(self._channels[rpc.service], shape)(
            path, type(request).SerializeToString, answers.FromString
        )
        metadata = [("authorization", f"Bearer {token}")] if token else []
        given = iter([request]) if requests else request
        try:
            answer = call(given, metadata=metadata, timeout=WATCH_SECONDS)
            await (anext(aiter(answer), None) if streams else answer)
        except grpc.aio.AioRpcError as error:
            return _reason(error)
        return ""


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR):
                    detail.Unpack(info)
                    return info.reason
    return f"{error.code().name}: {error.details()}"


def empty(rpc: Rpc) -> Any:
    return message_factory.GetMessageClass(rpc.method.input_type)()


def requests(rpc: Rpc) -> Iterator[Any]:
    """Requests that could be right, for each kind of resource one."""
    for name, kind in NAMES:
        request = empty(rpc)
        _fill(request, name, kind)
        yield request


def _fill(message: Any, name: str, kind: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated or field.containing_oneof is not None:
            continue
        if field.enum_type is not None and field.enum_type.name == "ResourceType":
            setattr(message, field.name, kind)
        elif field.enum_type is not None:
            setattr(message, field.name, 1)
        elif field.type == field.TYPE_STRING and not _OPTIONAL.search(field.name):
            text = {"id": ID}.get(field.name, DIGEST if "digest" in field.name else name)
            setattr(message, field.name, text)
        elif field.message_type is not None and field.message_type.file.package.startswith("modelyard."):
            _fill(getattr(message, field.name), name, kind)


@pytest.fixture
async def door(in_process: InProcess) -> AsyncIterator[Door]:
    made = Door(in_process)
    yield made
    await made.close()


def test_every_service_is_walked() -> None:
    assert {rpc.service for rpc in rpcs()} == set(SERVICE_NAMES)
    assert len(rpcs()) > 100


async def test_without_a_token_only_the_doors_are_open(door: Door) -> None:
    let_in = [str(rpc) for rpc in rpcs() if await door.reason(rpc, empty(rpc)) != "TOKEN_MISSING"]
    public = [str(rpc) for rpc in rpcs() if access_table(rpc.service)[rpc.name] == PUBLIC]
    assert let_in == public == ["governance.ExchangeToken", "governance.GetJwks"]


async def test_a_wrong_token_opens_nothing(door: Door, in_process: InProcess) -> None:
    issuer = Issuer()
    foreign = issuer.token(Principal("1", "admin", "service"))
    expired = issuer.token(Principal("1", "admin", "service"), life=timedelta(hours=-1))
    for token in (foreign, expired, "word", in_process.admin_token):
        for rpc in rpcs():
            if access_table(rpc.service)[rpc.name] != PUBLIC:
                assert await door.reason(rpc, empty(rpc), token) == "TOKEN_INVALID", rpc


async def test_who_was_given_nothing_may_nothing(door: Door, in_process: InProcess) -> None:
    async with in_process.user("nobody") as user:
        token = await user.client.access_token()
        for rpc in rpcs():
            rule = access_table(rpc.service)[rpc.name]
            if rule == SERVICES:
                assert await door.reason(rpc, empty(rpc), token) == "PERMISSION_DENIED", rpc
            elif isinstance(rule, Requires):
                assert await _first_well_formed(door, rpc, token) == "PERMISSION_DENIED", rpc


async def _first_well_formed(door: Door, rpc: Rpc, token: str) -> str:
    """Return the answer to the first request whose names are of the right form for this RPC."""
    reason = ""
    for request in requests(rpc):
        reason = await door.reason(rpc, request, token)
        if reason != "INVALID_FIELD":
            return reason
    return reason


async def test_who_is_disabled_may_nothing_at_all(door: Door, in_process: InProcess) -> None:
    async with in_process.user("gone") as user, in_process.admin() as admin:
        token = await user.client.access_token()
        await admin.principals.disable(user.name)
        await _until_all_know(door, token)
        for rpc in rpcs():
            if access_table(rpc.service)[rpc.name] != PUBLIC:
                assert await door.reason(rpc, empty(rpc), token) == "TOKEN_INVALID", rpc


async def _until_all_know(door: Door, token: str) -> None:
    lists = {
        "catalog": "ListCatalogs",
        "inference": "ListDeployments",
        "governance": "GetCaller",
        "artifact": "UploadBlobs",
    }
    chosen = [rpc for rpc in rpcs() if lists[rpc.service] == rpc.name]

    async def known() -> bool:
        return all([await door.reason(rpc, empty(rpc), token) == "TOKEN_INVALID" for rpc in chosen])

    await eventually(known)
