"""Decisions of the kit, rule by rule."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from modelyard_kit.access import (
    SYSTEM,
    Chain,
    Effect,
    Holder,
    Link,
    Privilege,
    ResourceGrant,
    ResourceType,
    decide,
)
from modelyard_kit.auth import Call, Principal, set_current_call
from modelyard_kit.authorization import AUTHENTICATED, PUBLIC, SERVICES, Missing, Requires, authorize
from modelyard_kit.errors import NotFound, PermissionDenied, PermissionsStale, TokenInvalid
from modelyard_kit.grants import Grants

CATALOG = Link(ResourceType.CATALOG, "c", "prod", "owner-of-catalog")
SCHEMA = Link(ResourceType.SCHEMA, "s", "prod.ml")
MODEL = Link(ResourceType.MODEL, "m", "prod.ml.iris", "owner-of-model")
CHAIN: Chain = (MODEL, SCHEMA, CATALOG, SYSTEM)
ADA = Principal("ada", "ada", "user")


def allow(resource: str, *privileges: Privilege) -> list[ResourceGrant]:
    return [ResourceGrant(resource, privilege, Effect.ALLOW) for privilege in privileges]


def deny(resource: str, privilege: Privilege) -> list[ResourceGrant]:
    return [ResourceGrant(resource, privilege, Effect.DENY)]


USE = allow("c", Privilege.USE_CATALOG, Privilege.USE_SCHEMA)


@pytest.mark.parametrize(
    ("principal", "grants", "allowed", "says"),
    [
        ("ada", [], False, "nobody granted USE_SCHEMA"),
        ("ada", USE, False, "nobody granted EDIT on model 'prod.ml.iris'"),
        ("ada", USE + allow("m", Privilege.EDIT), True, "EDIT is granted on model"),
        ("ada", USE + allow("c", Privilege.EDIT), True, "EDIT is granted on catalog"),
        ("ada", USE + allow("system", Privilege.EDIT), True, "EDIT is granted on the system"),
        ("ada", allow("m", Privilege.EDIT), False, "nobody granted USE_SCHEMA"),
        (
            "ada",
            allow("m", Privilege.EDIT) + allow("s", Privilege.USE_SCHEMA),
            False,
            "nobody granted USE_CATALOG",
        ),
        (
            "ada",
            USE + allow("c", Privilege.EDIT) + deny("m", Privilege.EDIT),
            False,
            "EDIT is denied on model",
        ),
        (
            "ada",
            USE + allow("m", Privilege.EDIT) + deny("c", Privilege.EDIT),
            False,
            "EDIT is denied on catalog",
        ),
        (
            "ada",
            USE + allow("m", Privilege.EDIT) + deny("s", Privilege.USE_SCHEMA),
            False,
            "USE_SCHEMA is denied",
        ),
        ("owner-of-catalog", [], True, "owner of catalog"),
        ("owner-of-model", [], False, "nobody granted USE_SCHEMA"),
        ("owner-of-model", USE, True, "owner of model"),
        ("owner-of-model", USE + deny("m", Privilege.EDIT), False, "EDIT is denied"),
        ("ada", USE + allow("s", Privilege.OWNERSHIP), True, "owner of schema"),
        (
            "ada",
            allow("system", Privilege.OWNERSHIP) + deny("m", Privilege.EDIT),
            True,
            "owner of the system",
        ),
    ],
)
def test_decide(principal: str, grants: list[ResourceGrant], allowed: bool, says: str) -> None:
    decision = decide(Holder.alone(principal, grants), Privilege.EDIT, CHAIN)
    assert (decision.allowed, says in decision.explanation) == (allowed, True), decision


def test_nobody_owns_what_has_no_owner() -> None:
    assert not decide(Holder.alone("", []), Privilege.USE_SCHEMA, (SCHEMA, SYSTEM)).allowed


@pytest.mark.parametrize(
    ("privilege", "allowed"),
    [(Privilege.EDIT, True), (Privilege.CREATE_MODEL, False), (Privilege.DEPLOY, False)],
)
def test_making_something_in_a_container_is_reaching_into_it(privilege: Privilege, allowed: bool) -> None:
    grants = allow("c", Privilege.USE_CATALOG) + allow("s", privilege)
    assert decide(Holder.alone("ada", grants), privilege, (SCHEMA, CATALOG, SYSTEM)).allowed is allowed
    reaching = Holder.alone("ada", grants + allow("s", Privilege.USE_SCHEMA))
    assert decide(reaching, privilege, (SCHEMA, CATALOG, SYSTEM)).allowed


def test_seeing_a_container_needs_its_use_privilege_only_once() -> None:
    assert decide(
        Holder.alone("ada", allow("c", Privilege.USE_CATALOG)), Privilege.USE_CATALOG, (CATALOG, SYSTEM)
    ).allowed


async def test_grants_fail_closed_when_they_grow_old() -> None:
    now = 0.0
    grants = Grants(bound=10.0, monotonic=lambda: now)
    with pytest.raises(PermissionsStale, match="has just started and does not know the grants yet"):
        grants.decide("ada", Privilege.EDIT, CHAIN)
    grants.replace("ada", "ada", USE + allow("m", Privilege.EDIT))
    await grants.mark_fresh(1)
    assert grants.decide("ada", Privilege.EDIT, CHAIN).allowed
    now = 10.5
    with pytest.raises(PermissionsStale, match="last confirmed 10 s ago"):
        grants.decide("ada", Privilege.EDIT, CHAIN)


async def test_a_revocation_replaces_what_was_granted() -> None:
    grants = Grants()
    grants.replace("ada", "ada", USE + allow("m", Privilege.EDIT))
    await grants.mark_fresh(1)
    seen = grants.changes
    grants.replace("ada", "ada", USE)
    assert grants.changes == seen + 1
    with pytest.raises(PermissionDenied):
        grants.require(ADA, Privilege.EDIT, CHAIN)


async def test_scope_lists_where_a_privilege_is_held_and_denied() -> None:
    grants = Grants()
    held = allow("c", Privilege.READ_METADATA) + allow("x", Privilege.OWNERSHIP) + allow("y", Privilege.EDIT)
    grants.replace("ada", "ada", held + deny("m", Privilege.READ_METADATA))
    await grants.mark_fresh(1)
    scope = grants.scope("ada", Privilege.READ_METADATA)
    assert (scope.allowed, scope.denied, scope.everything) == ({"c", "x"}, {"m"}, False)


@pytest.mark.parametrize(
    ("missing", "nearest"),
    [
        (NotFound("model", "prod.ml.iris"), (SCHEMA, CATALOG, SYSTEM)),
        (NotFound("model", "prod.ml.iris"), (CATALOG, SYSTEM)),
        (NotFound("model", "prod.ml.iris"), (SYSTEM,)),
        (NotFound("model_version", "prod.ml.iris/7"), (MODEL, SCHEMA, CATALOG, SYSTEM)),
        (NotFound("model_version", "models:/prod.ml.iris@x"), (SCHEMA, CATALOG, SYSTEM)),
    ],
)
@pytest.mark.parametrize("held", [[], USE, USE + deny("m", Privilege.READ_METADATA)])
async def test_who_may_not_look_does_not_learn_whether_it_exists(
    missing: NotFound, nearest: Chain, held: list[ResourceGrant]
) -> None:
    async def exists(_request: object) -> Chain:
        return CHAIN

    async def does_not(_request: object) -> Chain:
        raise Missing(missing, nearest)

    grants = Grants()
    grants.replace(
        "ada", "ada", held if nearest[0] is MODEL else [one for one in held if one.resource_id != "m"]
    )
    await grants.mark_fresh(1)
    answers = []
    for resolve in (exists, does_not):
        with pytest.raises(PermissionDenied) as caught:
            await authorize(Requires(Privilege.READ_METADATA, resolve), ADA, grants, None)
        answers.append((caught.value.message, caught.value.metadata))
    if nearest[0].type is not ResourceType.SYSTEM or not held:  # who may use a catalog knows that it exists
        assert answers[0] == answers[1]


async def test_who_may_look_learns_that_it_does_not_exist() -> None:
    async def missing(_request: object) -> Chain:
        raise Missing(NotFound("model", "prod.ml.iris"), (SCHEMA, CATALOG, SYSTEM))

    grants = Grants()
    grants.replace("ada", "ada", USE + allow("c", Privilege.READ_METADATA))
    await grants.mark_fresh(1)
    with pytest.raises(NotFound):
        await authorize(Requires(Privilege.READ_METADATA, missing), ADA, grants, None)


async def test_who_is_disabled_is_refused_by_every_rule() -> None:
    async def exists(_request: object) -> Chain:
        return CHAIN

    grants = Grants()
    grants.replace("ada", "ada", USE + allow("m", Privilege.EDIT), disabled=True)
    await grants.mark_fresh(1)
    for rule in (AUTHENTICATED, SERVICES, Requires(Privilege.EDIT, exists)):
        with pytest.raises(TokenInvalid, match="disabled"):
            await authorize(rule, ADA, grants, None)
    assert await authorize(PUBLIC, ADA, grants, None) is None
    assert not grants.decide("ada", Privilege.EDIT, CHAIN).allowed
    assert grants.scope("ada", Privilege.EDIT).denied == {SYSTEM.id}


async def test_with_stale_grants_only_services_are_served() -> None:
    now = 0.0
    grants = Grants(bound=10.0, monotonic=lambda: now)
    await grants.mark_fresh(1)
    now = 11.0
    with pytest.raises(PermissionsStale):
        await authorize(AUTHENTICATED, ADA, grants, None)
    await authorize(SERVICES, Principal("1", "catalog", "service"), grants, None)
    await authorize(PUBLIC, ADA, grants, None)


async def test_a_group_gives_and_denies_and_owns_for_its_members() -> None:
    grants = Grants()
    grants.replace("ada", "ada", [], groups=["inner"])
    grants.replace("inner", "inner", USE, groups=["outer"], is_group=True)
    grants.replace("outer", "outer", allow("m", Privilege.EDIT), is_group=True)
    await grants.mark_fresh(1)
    decision = grants.decide("ada", Privilege.EDIT, CHAIN)
    assert decision.explanation == "EDIT is granted on model 'prod.ml.iris' to group 'outer'"
    grants.replace("inner", "inner", USE + deny("c", Privilege.EDIT), groups=["outer"], is_group=True)
    decision = grants.decide("ada", Privilege.EDIT, CHAIN)
    assert (decision.allowed, decision.explanation) == (
        False,
        "EDIT is denied on catalog 'prod' to group 'inner'",
    )
    owned = (Link(ResourceType.MODEL, "o", "prod.ml.owned", "outer"), SCHEMA, CATALOG, SYSTEM)
    decision = grants.decide("ada", Privilege.DEPLOY, owned)
    assert decision.explanation == "owner of model 'prod.ml.owned' through group 'outer'"
    assert set(grants.scope("ada", Privilege.DEPLOY).owners) == {"ada", "inner", "outer"}
    grants.replace("ada", "ada", [])
    assert not grants.decide("ada", Privilege.DEPLOY, owned).allowed


async def test_a_limited_token_gives_no_other_privilege() -> None:
    grants = Grants()
    held = USE + allow("m", Privilege.EDIT) + allow("m", Privilege.EXECUTE)
    grants.replace("ada", "ada", held)
    grants.replace("bob", "bob", held)
    await grants.mark_fresh(1)
    limited = replace(ADA, privileges=frozenset(("EXECUTE",)))

    async def ask() -> list[bool]:
        set_current_call(Call(limited, "r"))
        asked = [("ada", Privilege.EXECUTE), ("ada", Privilege.EDIT), ("bob", Privilege.EDIT)]
        return [grants.decide(who, privilege, CHAIN).allowed for who, privilege in asked]

    assert await asyncio.create_task(ask()) == [True, False, True]
    assert grants.decide("ada", Privilege.EDIT, CHAIN).allowed  # no call, no token


async def test_service_rules_refuse_people() -> None:
    with pytest.raises(PermissionDenied, match="being a service"):
        await authorize(SERVICES, ADA, Grants(), None)
    await authorize(SERVICES, Principal("1", "catalog", "service"), Grants(), None)
