"""Keeps the grants in memory fresh by watching governance, and its public keys known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc.aio
import structlog

from modelyard.api.governance.v1.governance_service_pb2 import (
    GetJwksRequest,
    GetJwksResponse,
    WatchPermissionsRequest,
)
from modelyard_kit.auth import public_key
from modelyard_kit.errors import DomainError
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers, domain_error
from modelyard_kit.protos import grant_from_proto

# Governance sends a heartbeat every second; silence for this long means that the connection is dead.
SILENCE_SECONDS = 5.0
RETRY_SECONDS = 0.5
# Tokens signed with unknown keys must not become calls to governance without bound.
REFRESH_SECONDS = 5.0
# A key that was withdrawn verifies no longer than this, where governance can be reached.
FOLLOW_SECONDS = 10.0

_log = structlog.get_logger()


async def watch(peers: Peers, grants: Grants) -> None:
    """Follow `WatchPermissions` for ever, beginning again whenever it breaks."""
    while True:
        try:
            await _watch_once(peers, grants)
        except (DomainError, TimeoutError, OSError) as error:
            _log.warning("permission_watch_lost", error=str(error) or type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)


async def _watch_once(peers: Peers, grants: Grants) -> None:
    stream = aiter(peers.stream(peers.governance.WatchPermissions, WatchPermissionsRequest()))
    first: set[str] | None = set()  # ids of the first, complete state; what it lacks is forgotten
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await anext(stream)
        except StopAsyncIteration:
            return
        for principal in message.changed:
            grants.replace(
                principal.principal_id,
                principal.principal_name,
                map(grant_from_proto, principal.grants),
                groups=principal.group_ids,
                disabled=principal.disabled,
                is_group=principal.is_group,
            )
            if first is not None:
                first.add(principal.principal_id)
        for principal_id in message.removed:
            grants.remove(principal_id)
        if message.complete:
            if first is not None:
                grants.retain(first)
                first = None
            await grants.mark_fresh(message.revision)


class RemoteKeys:
    """The public keys of governance, asked for when first needed, when an unknown one turns up, and now and then."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._keys: Mapping[str, Any] = {}
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def __call__(self, refresh: bool) -> Mapping[str, Any]:  # noqa: FBT001 - the shape of auth.Keys
        """Return the keys by id."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if not self._keys or (refresh and now - self._asked > REFRESH_SECONDS):
                await self._renew()
            return self._keys

    async def follow(self) -> None:
        """Ask for ever; while governance is away, the keys last known stay."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self._renew()
            except DomainError as error:
                _log.warning("signing_keys_not_refreshed", error=str(error))

    async def _renew(self) -> None:
        response = await self._ask()
        self._keys = {key.kid: public_key(key.kid, key.x, key.y) for key in response.keys}
        self._asked = asyncio.get_running_loop().time()

    async def _ask(self) -> GetJwksResponse:
        try:
            return await self._peers.governance.GetJwks(GetJwksRequest(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            raise domain_error(error, "governance") from error
