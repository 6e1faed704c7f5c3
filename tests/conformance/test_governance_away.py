"""What services decide while governance, or its database, is away: after a bound, nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from modelyard_governance.permissions import FRESH_SECONDS, PermissionFeed
from modelyard_kit import permissions
from modelyard_kit.access import SYSTEM, Privilege
from modelyard_kit.config import Settings
from modelyard_kit.db import Database
from modelyard_kit.errors import PermissionsStale
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers
from tests.framework.waiting import eventually

from .governance_stack import stack


@asynccontextmanager
async def watching(folder: Path, grants: Grants) -> AsyncIterator[None]:
    """Follow governance as every service does."""
    secrets = folder / "secrets"
    settings = Settings(
        listen=f"unix:{folder}/c",
        database="postgresql://nowhere/x",
        token_file=secrets / "catalog.token",
        governance_address=f"unix:{folder}/g",
    )
    peers = Peers(settings)
    task = asyncio.create_task(permissions.watch(peers, grants))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await peers.close()


async def test_services_fail_closed_while_governance_is_away_and_open_again(
    fresh_database: Callable[[str], str], tmp_path: Path
) -> None:
    dsn, grants = fresh_database("modelyard_governance"), Grants(bound=3.0)

    async def admin_may() -> bool:
        try:
            return grants.decide(grants.id_of("admin") or "", Privilege.MANAGE, (SYSTEM,)).allowed
        except PermissionsStale:
            return False

    async def stale() -> bool:
        try:
            grants.decide("anybody", Privilege.MANAGE, (SYSTEM,))
        except PermissionsStale:
            return True
        return False

    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(stack(dsn, tmp_path))
        async with watching(tmp_path, grants):
            await eventually(admin_may)
            await first.aclose()
            await eventually(stale)
            async with stack(dsn, tmp_path):
                await eventually(admin_may)


async def test_what_was_not_confirmed_is_not_told_to_who_comes_back(
    fresh_database: Callable[[str], str],
) -> None:
    """While the database does not answer, a new watch hears nothing, for it would take that for confirmed."""
    now = 0.0
    database = Database.connect(fresh_database("modelyard_governance"))
    feed = PermissionFeed(database, Grants(), monotonic=lambda: now)
    try:
        await feed.refresh()
        assert (await anext(feed.watch())).complete
        now = FRESH_SECONDS
        late = feed.watch()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(late)
        await feed.refresh()
        assert (await anext(feed.watch())).complete
    finally:
        await database.close()
