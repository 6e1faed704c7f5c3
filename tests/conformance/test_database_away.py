"""What callers are told while the database is away, and what becomes of a change whose commit nobody heard of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.types import Principal
from tests.framework.postgres_proxy import PostgresProxy, postgres_proxy

from .governance_stack import stack


@pytest.fixture
async def away(
    fresh_database: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[tuple[AsyncClient, PostgresProxy]]:
    """The administrator of a governance service, and what stands between that and its database."""
    async with (
        postgres_proxy(fresh_database("modelyard_governance"), tmp_path) as proxy,
        stack(proxy.dsn, tmp_path) as started,
        AsyncClient(started.settings.listen, token=started.secret("admin")) as client,
    ):
        await client.principals.list().collect(1)
        yield client, proxy


async def named(client: AsyncClient, name: str) -> list[Principal]:
    return await client.principals.list(filter=f"name = '{name}'").collect()


async def test_calls_say_that_the_database_is_away_and_go_on_when_it_is_back(
    away: tuple[AsyncClient, PostgresProxy],
) -> None:
    client, proxy = away
    proxy.cut()
    for call in (
        client.principals.get("admin"),
        client.principals.create("ada"),
        client.tokens.create(description="x"),
    ):
        with pytest.raises(errors.PeerUnavailable, match="the database service cannot be reached") as caught:
            await call
        assert (caught.value.code, caught.value.metadata) == ("UNAVAILABLE", {"service": "database"})
    proxy.mend()
    await client.principals.create("ada")
    assert len(await named(client, "ada")) == 1


async def test_a_creation_whose_commit_nobody_heard_of_is_repeated_and_made_once(
    away: tuple[AsyncClient, PostgresProxy],
) -> None:
    client, proxy = away
    proxy.loses = b"robot-seven"
    made = await client.principals.create("robot-seven")
    assert proxy.loses == b""
    assert [found.id for found in await named(client, "robot-seven")] == [made.id]


async def test_what_must_not_be_repeated_is_left_to_the_caller(
    away: tuple[AsyncClient, PostgresProxy],
) -> None:
    client, proxy = away
    proxy.loses = b"key-of-seven"
    with pytest.raises(errors.PeerUnavailable):
        await client.tokens.create(description="key-of-seven")
    assert proxy.loses == b""
    tokens = await client.tokens.list(filter="description = 'key-of-seven'").collect()
    assert len(tokens) == 1
