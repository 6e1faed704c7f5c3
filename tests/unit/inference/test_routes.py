"""Route tables reach watchers; confirmations are remembered as long as a gateway lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from modelyard_inference.planner.observed import Gateway
from modelyard_inference.route_table import RouteTable
from modelyard_inference.routes import Routes


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0
        self.changes = 0

    def __call__(self) -> float:
        return self.now

    def changed(self) -> None:
        self.changes += 1


def make(version: int = 1) -> tuple[Routes, Ticks]:
    ticks = Ticks()
    return Routes(RouteTable(version, ()), ticks.changed, monotonic=ticks), ticks


async def next_version(watch: AsyncIterator[RouteTable]) -> int:
    async with asyncio.timeout(5):
        return (await anext(watch)).version


async def test_watcher_gets_the_table_now_and_after_each_change() -> None:
    routes, _ = make(3)
    async with aclosing(routes.watch("g")) as watch:
        assert await next_version(watch) == 3
        await routes.publish(RouteTable(4, ()))
        assert await next_version(watch) == 4
        pending = asyncio.create_task(next_version(watch))
        await asyncio.sleep(0)
        await routes.publish(RouteTable(4, ()))
        await routes.publish(RouteTable(2, ()))  # an older one is not published
        await routes.publish(RouteTable(6, ()))
        assert await pending == 6


async def test_slow_watcher_gets_only_the_newest() -> None:
    routes, _ = make()
    async with aclosing(routes.watch("g")) as watch:
        await next_version(watch)
        for version in (2, 3, 4):
            await routes.publish(RouteTable(version, ()))
        assert await next_version(watch) == 4


async def test_watching_gateway_is_waited_for_even_if_it_confirms_nothing() -> None:
    routes, ticks = make()
    async with aclosing(routes.watch("g")) as watch:
        await next_version(watch)
        ticks.now = 1000.0
        assert routes.gateways().live == (Gateway("g", 0, frozenset()),)
    assert routes.gateways().live
    ticks.now += 10.1
    assert routes.gateways().live == ()


async def test_gateway_that_stops_confirming_is_forgotten_after_its_lease() -> None:
    routes, ticks = make()
    routes.confirm(Gateway("g", 5, frozenset(("a",))))
    ticks.now = 10.0
    assert routes.gateways().live[0].version == 5
    assert not routes.gateways().settled
    ticks.now = 10.1
    assert routes.gateways().live == ()
    assert routes.gateways().settled


async def test_what_two_gateways_confirm_under_one_id_does_not_count() -> None:
    """Each would speak for the other: routes would be taken for confirmed that one of them does not have."""
    routes, ticks = make()
    async with aclosing(routes.watch("g")) as one:
        await next_version(one)
        routes.confirm(Gateway("g", 5, frozenset(("a",))))
        async with aclosing(routes.watch("g")) as other:
            await next_version(other)
            ticks.now = 10.0  # perhaps the same one, which lost its first watch
            assert routes.gateways().live[0].version == 5
            ticks.now = 10.1
            (told,) = routes.gateways().lagging(1)
            assert "MODELYARD_GATEWAY_ID" in told.problem
            assert not told.healthy
        assert routes.gateways().live[0].version == 5


async def test_only_news_wake_the_reconciler() -> None:
    routes, ticks = make()
    for gateway in (Gateway("g", 5, frozenset()), Gateway("g", 5, frozenset()), Gateway("g", 6, frozenset())):
        routes.confirm(gateway)
    assert ticks.changes == 2
