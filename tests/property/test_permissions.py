"""Permissions: every way of asking agrees with a plain evaluator of the rules, over random hierarchies and grants.

The rules, as `DESIGN.md` tells them: what nobody granted is denied; a DENY on a resource or anything that contains it wins
over every ALLOW; owners may do everything with what they own and what is inside; the owner of the system may do everything; and
to reach into a catalog or schema one needs USE_CATALOG and USE_SCHEMA.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.grants import GrantRules
from modelyard_governance.models import Account, Grant, GrantContent, Version
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import identity as identity_rows
from modelyard_kit.access import (
    SYSTEM,
    Chain,
    Effect,
    Grants,
    Link,
    Privilege,
    ResourceGrant,
    ResourceType,
    Scope,
    decide,
)
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.ids import new_id

OWN, REACH = Privilege.OWNERSHIP, (Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
MAKE = (Privilege.CREATE_MODEL, Privilege.DEPLOY)
LISTED = (Privilege.EXECUTE, Privilege.READ_METADATA, Privilege.MANAGE, *REACH)
ASKED = (*LISTED, *MAKE)
WHO = ("ada", "bob")


@dataclass(frozen=True)
class World:
    """Resources with their containers, and what is granted to whom."""

    chains: tuple[Chain, ...]
    granted: dict[str, tuple[ResourceGrant, ...]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two catalogs, up to two schemas in each, models and deployments within; owners and grants at random."""
    owners = st.sampled_from(("", *WHO))
    chains: list[Chain] = [(SYSTEM,)]
    for c in range(2):
        catalog = (Link(ResourceType.CATALOG, f"c{c}", f"c{c}", draw(owners)), SYSTEM)
        chains.append(catalog)
        for s in range(draw(st.integers(0, 2))):
            schema = (Link(ResourceType.SCHEMA, f"c{c}s{s}", f"c{c}.s{s}", draw(owners)), *catalog)
            chains.append(schema)
            for kind in (ResourceType.MODEL, ResourceType.DEPLOYMENT):
                for m in range(draw(st.integers(0, 2))):
                    link = Link(kind, f"c{c}s{s}{kind}{m}", f"c{c}.s{s}.m{m}", draw(owners))
                    chains.append((link, *schema))
    ids = [chain[0].id for chain in chains]
    grant = st.builds(ResourceGrant, st.sampled_from(ids), st.sampled_from(ASKED), st.sampled_from(Effect))
    ownership = st.builds(ResourceGrant, st.sampled_from(ids), st.just(OWN), st.just(Effect.ALLOW))
    held = st.lists(st.one_of(grant, grant, grant, ownership), max_size=8, unique=True).map(tuple)
    return World(tuple(chains), {who: draw(held) for who in WHO})


def asked_of(world: World, privilege: Privilege) -> list[Chain]:
    """The chains of which a privilege is asked: USE_CATALOG of nothing inside a catalog, USE_SCHEMA of nothing inside a schema."""
    depth = {REACH[0]: 2, REACH[1]: 3}.get(privilege, 4)
    return [chain for chain in world.chains if len(chain) <= depth]


def may(who: str, world: World, privilege: Privilege, chain: Chain) -> bool:
    """The rules, as plainly as they can be written."""
    granted = world.granted[who]
    if any(item.resource_id == "system" and item.privilege is OWN for item in granted):
        return True
    if len(chain) > 1:
        into = 0 if privilege in MAKE else 1  # who makes something in a container reaches into it
        for position, link in enumerate(chain[into:], into):
            need = {ResourceType.CATALOG: REACH[0], ResourceType.SCHEMA: REACH[1]}.get(link.type)
            if need and not may_directly(who, granted, need, chain[position:]):
                return False
    return may_directly(who, granted, privilege, chain)


def may_directly(who: str, granted: tuple[ResourceGrant, ...], privilege: Privilege, chain: Chain) -> bool:
    ids = [link.id for link in chain]
    if any(g.effect is Effect.DENY and g.privilege is privilege and g.resource_id in ids for g in granted):
        return False
    owns = any(link.owner_id == who for link in chain)
    owns = owns or any(g.privilege is OWN and g.resource_id in ids for g in granted)
    allowed = any(
        g.effect is Effect.ALLOW and g.privilege is privilege and g.resource_id in ids for g in granted
    )
    return owns or allowed


def visible(scope: Scope, chain: Chain) -> bool:
    """What a list's SQL does with a scope for one row, as `Scope` says."""
    ids = {link.id for link in chain}
    if scope.everything:
        return True
    if ids & scope.denied:
        return False
    return bool(ids & scope.allowed) or any(link.owner_id == scope.principal_id for link in chain)


def reachable(who: str, grants: Grants, chain: Chain) -> bool:
    """Whether the containers of a row let one in, as a list asks for them: USE_CATALOG and USE_SCHEMA by their scopes."""
    needs = {ResourceType.CATALOG: REACH[0], ResourceType.SCHEMA: REACH[1]}
    return all(
        visible(grants.scope(who, needs[link.type]), chain[position:])
        for position, link in enumerate(chain)
        if position and link.type in needs
    )


def in_memory(world: World) -> Grants:
    grants = Grants()
    for who, held in world.granted.items():
        grants.replace(who, who, held)
    asyncio.run(grants.mark_fresh(1))
    return grants


@given(worlds(), st.sampled_from(WHO), st.sampled_from(ASKED))
@settings(max_examples=300, deadline=None)
def test_decide_is_the_plain_evaluator(world: World, who: str, privilege: Privilege) -> None:
    for chain in asked_of(world, privilege):
        decision = decide(who, world.granted[who], privilege, chain)
        assert decision.allowed == may(who, world, privilege, chain), (chain, decision.explanation)
        assert decision.explanation


@given(worlds(), st.sampled_from(WHO), st.sampled_from(LISTED))
@settings(max_examples=300, deadline=None)
def test_lists_show_exactly_what_checks_allow(world: World, who: str, privilege: Privilege) -> None:
    grants = in_memory(world)
    for chain in asked_of(world, privilege):
        shown = visible(grants.scope(who, privilege), chain) and reachable(who, grants, chain)
        assert shown == grants.decide(who, privilege, chain).allowed == may(who, world, privilege, chain)


@given(worlds(), st.sampled_from(WHO), st.sampled_from(ASKED), st.data())
@settings(max_examples=200, deadline=None)
def test_a_deny_never_gives_and_an_allow_never_takes(
    world: World, who: str, privilege: Privilege, data: st.DataObject
) -> None:
    on = data.draw(st.sampled_from([chain[0].id for chain in world.chains]))
    kind = data.draw(st.sampled_from(ASKED))
    effect = data.draw(st.sampled_from(Effect))
    more = (*world.granted[who], ResourceGrant(on, kind, effect))
    for chain in world.chains:
        before = decide(who, world.granted[who], privilege, chain).allowed
        after = decide(who, more, privilege, chain).allowed
        denied = ResourceGrant(on, kind, Effect.DENY) in world.granted[who]
        if effect is Effect.DENY:
            assert after <= before
        elif not denied:
            assert after >= before


class FixedDirectory:
    """Knows the resources of a world."""

    def __init__(self, world: World) -> None:
        self._chains = {(chain[0].type, chain[0].name): chain for chain in world.chains}

    async def chain(self, resource_type: ResourceType, name: str) -> Chain:
        return self._chains[resource_type, name]

    async def chain_or_phantom(self, resource_type: ResourceType, name: str) -> Chain:
        return self._chains[resource_type, name]

    async def version(self, reference: str) -> Version:
        raise NotImplementedError(reference)


@given(world=worlds())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_stored_is_what_checks_and_watchers_decide_by(
    fresh_database: Callable[[str], str], world: World
) -> None:
    """Grants through the database, the watch and CheckPermission, against the plain evaluator."""
    asyncio.run(_through_the_database(fresh_database("modelyard_governance"), world))


async def _through_the_database(dsn: str, world: World) -> None:
    database, grants = Database.connect(dsn), Grants()
    try:
        await database.in_tx(lambda connection: _store(connection, world))
        feed = PermissionFeed(database, grants)
        await feed.refresh()
        watcher = Grants()
        async for step in feed.watch():
            for held in step.changed:
                watcher.replace(held.principal_id, held.principal, held.grants)
            if step.complete:
                await watcher.mark_fresh(step.revision)
                break
        directory = FixedDirectory(world)
        rules = GrantRules(database=database, grants=grants, feed=feed, directory=directory, clock=utc_now)
        for who in WHO:
            call = Call(Principal(who, who, "user"), "r")
            for chain in world.chains:
                content = GrantContent("", Privilege.EXECUTE, Effect.ALLOW, chain[0].type, chain[0].name)
                wanted = may(who, world, Privilege.EXECUTE, chain)
                assert (await rules.check(call, content)).allowed == wanted
                assert watcher.decide(who, Privilege.EXECUTE, chain).allowed == wanted
    finally:
        await database.close()


async def _store(connection: AsyncConnection, world: World) -> None:
    now = datetime.now(UTC)
    kinds = {chain[0].id: chain[0] for chain in world.chains}
    for who, held in world.granted.items():
        revision = await identity_rows.next_revision(connection)
        await identity_rows.insert_account(connection, Account(who, who, "user", "", now), revision=revision)
        for item in held:
            resource = kinds[item.resource_id]
            grant = Grant(new_id(), who, who, item.privilege, item.effect, resource, now)
            await grant_rows.add(connection, grant)
