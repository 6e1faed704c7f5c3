"""Permissions: every way of asking agrees with a plain evaluator of the rules, over random hierarchies and grants.

The rules, as `DESIGN.md` tells them: what nobody granted is denied; a DENY on a resource or anything that contains it wins
over every ALLOW; owners may do everything with what they own and what is inside; the owner of the system may do everything; and
to reach into a catalog or schema one needs USE_CATALOG and USE_SCHEMA. What a group holds, owns or is denied, everybody in it does,
directly or through other groups; who is disabled may do nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_gateway.permissions import allowed_principals
from modelyard_gateway.table import Route, RouteTable
from modelyard_governance.grants import GrantRules
from modelyard_governance.models import Account, Grant, GrantContent, Version
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import groups as group_rows
from modelyard_governance.store import identity as identity_rows
from modelyard_kit.access import (
    SYSTEM,
    Chain,
    Effect,
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
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id

OWN, REACH = Privilege.OWNERSHIP, (Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
MAKE = (Privilege.CREATE_MODEL, Privilege.DEPLOY)
LISTED = (Privilege.EXECUTE, Privilege.READ_METADATA, Privilege.MANAGE, *REACH)
ASKED = (*LISTED, *MAKE)
WHO = ("ada", "bob")
GROUPS = ("team", "org", "all")
EVERYBODY = (*WHO, *GROUPS)


@dataclass(frozen=True)
class World:
    """Resources with their containers, what is granted to whom, who is in which group, who is disabled."""

    chains: tuple[Chain, ...]
    granted: dict[str, tuple[ResourceGrant, ...]]
    groups: dict[str, tuple[str, ...]]
    disabled: frozenset[str]

    def parties(self, who: str) -> set[str]:
        """Return somebody and the groups it is in, directly or through others."""
        return {who}.union(*(self.parties(group) for group in self.groups[who]))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two catalogs, up to two schemas in each, models and deployments within; owners and grants at random."""
    owners = st.sampled_from(("", *EVERYBODY))
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
    held = st.lists(st.one_of(grant, grant, grant, ownership), max_size=6, unique=True).map(tuple)
    # A group is only in those after it, so that none is in itself.
    within = dict.fromkeys(WHO, GROUPS) | {g: GROUPS[n + 1 :] for n, g in enumerate(GROUPS)}
    groups = {
        who: tuple(draw(st.lists(st.sampled_from(around), unique=True, max_size=2))) if around else ()
        for who, around in within.items()
    }
    disabled = frozenset(draw(st.sampled_from([(), (), (), ("bob",)])))
    return World(tuple(chains), {who: draw(held) for who in EVERYBODY}, groups, disabled)


def asked_of(world: World, privilege: Privilege) -> list[Chain]:
    """The chains of which a privilege is asked: USE_CATALOG of nothing inside a catalog, USE_SCHEMA of nothing inside a schema."""
    depth = {REACH[0]: 2, REACH[1]: 3}.get(privilege, 4)
    return [chain for chain in world.chains if len(chain) <= depth]


def may(who: str, world: World, privilege: Privilege, chain: Chain) -> bool:
    """The rules, as plainly as they can be written."""
    if who in world.disabled:
        return False
    parties = world.parties(who)
    granted = tuple(grant for party in parties for grant in world.granted[party])
    if any(item.resource_id == "system" and item.privilege is OWN for item in granted):
        return True
    if len(chain) > 1:
        into = 0 if privilege in MAKE else 1  # who makes something in a container reaches into it
        for position, link in enumerate(chain[into:], into):
            need = {ResourceType.CATALOG: REACH[0], ResourceType.SCHEMA: REACH[1]}.get(link.type)
            if need and not may_directly(parties, granted, need, chain[position:]):
                return False
    return may_directly(parties, granted, privilege, chain)


def may_directly(
    parties: set[str], granted: tuple[ResourceGrant, ...], privilege: Privilege, chain: Chain
) -> bool:
    ids = [link.id for link in chain]
    if any(g.effect is Effect.DENY and g.privilege is privilege and g.resource_id in ids for g in granted):
        return False
    owns = any(link.owner_id in parties for link in chain)
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
    return bool(ids & scope.allowed) or any(link.owner_id in scope.owners for link in chain)


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
        grants.replace(
            who,
            who,
            held,
            groups=world.groups[who],
            disabled=who in world.disabled,
            is_group=who in GROUPS,
        )
    asyncio.run(grants.mark_fresh(1))
    return grants


@given(worlds(), st.sampled_from(WHO), st.sampled_from(ASKED))
@settings(max_examples=300, deadline=None)
def test_decide_is_the_plain_evaluator(world: World, who: str, privilege: Privilege) -> None:
    holder = in_memory(world).holder(who)
    for chain in asked_of(world, privilege):
        decision = decide(holder, privilege, chain)
        assert decision.allowed == may(who, world, privilege, chain), (chain, decision.explanation)
        assert decision.explanation


@given(worlds(), st.sampled_from(WHO), st.sampled_from(LISTED))
@settings(max_examples=300, deadline=None)
def test_lists_show_exactly_what_checks_allow(world: World, who: str, privilege: Privilege) -> None:
    grants = in_memory(world)
    for chain in asked_of(world, privilege):
        shown = visible(grants.scope(who, privilege), chain) and reachable(who, grants, chain)
        assert shown == grants.decide(who, privilege, chain).allowed == may(who, world, privilege, chain)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_envoy_lets_exactly_those_predict_whom_checks_allow(world: World) -> None:
    served = [chain for chain in world.chains if chain[0].type is ResourceType.DEPLOYMENT]
    table = RouteTable(1, tuple(Route(chain, (), 0, 0.0) for chain in served))
    let_in = allowed_principals(table, in_memory(world).holders())
    for chain in served:
        wanted = [who for who in WHO if may(who, world, Privilege.EXECUTE, chain)]
        assert list(let_in[chain[0].id]) == wanted


@given(worlds(), st.sampled_from(WHO), st.sampled_from(ASKED), st.data())
@settings(max_examples=200, deadline=None)
def test_a_deny_never_gives_and_an_allow_never_takes(
    world: World, who: str, privilege: Privilege, data: st.DataObject
) -> None:
    on = data.draw(st.sampled_from([chain[0].id for chain in world.chains]))
    kind = data.draw(st.sampled_from(ASKED))
    effect = data.draw(st.sampled_from(Effect))
    whom = data.draw(st.sampled_from(sorted(world.parties(who))))
    more = world.granted | {whom: (*world.granted[whom], ResourceGrant(on, kind, effect))}
    old, new = in_memory(world).holder(who), in_memory(replace(world, granted=more)).holder(who)
    for chain in world.chains:
        before = decide(old, privilege, chain).allowed
        after = decide(new, privilege, chain).allowed
        denied = any(ResourceGrant(on, kind, Effect.DENY) in world.granted[p] for p in world.parties(who))
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
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
                watcher.replace(
                    held.principal_id,
                    held.principal,
                    held.grants,
                    groups=held.groups,
                    disabled=held.disabled,
                    is_group=held.is_group,
                )
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
        account = Account(who, who, "group" if who in GROUPS else "user", "", now)
        await identity_rows.insert_account(connection, account, revision=revision)
        for item in held:
            resource = kinds[item.resource_id]
            grant = Grant(new_id(), who, who, item.privilege, item.effect, resource, now)
            await grant_rows.add(connection, grant)
    for who, groups in world.groups.items():
        for group in groups:
            await group_rows.put(connection, group, who, now=now)
    for who in world.disabled:
        await identity_rows.set_disabled(connection, who, now)
