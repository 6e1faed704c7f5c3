"""Who may do what: privileges along the chain of containers, decided from memory.

A privilege on a resource is held on everything inside it, now and later. Rules, in this order:

1. the owner of the system may do everything;
2. a DENY of the privilege anywhere on the chain refuses;
3. the owner of any link of the chain may do everything with it;
4. an ALLOW of the privilege anywhere on the chain allows;
5. everything else is refused.

To reach into a catalog or schema one also needs USE_CATALOG or USE_SCHEMA there, by the same rules. A principal holds and owns
what every group holds and owns that it is in, directly or through other groups; a DENY of a group is one of its members. Who is
disabled may do nothing, and a token that is limited to some privileges gives no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from modelyard_kit.auth import Principal, current_call
from modelyard_kit.errors import DomainError, PermissionDenied, PermissionsStale, TokenInvalid


class Privilege(StrEnum):
    """A right; the names are those of `governance/v1/access.proto`."""

    USE_CATALOG = "USE_CATALOG"
    USE_SCHEMA = "USE_SCHEMA"
    CREATE_CATALOG = "CREATE_CATALOG"
    CREATE_SCHEMA = "CREATE_SCHEMA"
    CREATE_MODEL = "CREATE_MODEL"
    CREATE_VERSION = "CREATE_VERSION"
    READ_METADATA = "READ_METADATA"
    READ_ARTIFACT = "READ_ARTIFACT"
    EXECUTE = "EXECUTE"
    APPLY_TAG = "APPLY_TAG"
    EDIT = "EDIT"
    APPROVE = "APPROVE"
    DEPLOY = "DEPLOY"
    MANAGE = "MANAGE"
    OWNERSHIP = "OWNERSHIP"


class Effect(StrEnum):
    """What a grant does."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class ResourceType(StrEnum):
    """Kinds of things; the names are those of `common/v1/resource.proto`."""

    SYSTEM = "system"
    CATALOG = "catalog"
    SCHEMA = "schema"
    MODEL = "model"
    MODEL_VERSION = "model_version"
    DEPLOYMENT = "deployment"
    ARTIFACT = "artifact"
    PRINCIPAL = "principal"
    TOKEN = "token"  # noqa: S105 - a kind of resource
    UPLOAD = "upload"
    POLICY = "policy"
    TRUST_ROOT = "trust_root"
    ISSUER = "issuer"
    SIGNING_KEY = "signing_key"


@dataclass(frozen=True)
class Link:
    """One resource of a chain: immutable id, name at the moment, owner if it has one."""

    type: ResourceType
    id: str
    name: str
    owner_id: str = ""


Chain = tuple[Link, ...]
"""A resource and its containers, innermost first, ending with SYSTEM."""

SYSTEM_ID = "system"
SYSTEM = Link(ResourceType.SYSTEM, SYSTEM_ID, "")

# To make something in a container is to reach into it.
_MAKES_INSIDE = frozenset(
    (Privilege.CREATE_SCHEMA, Privilege.CREATE_MODEL, Privilege.CREATE_VERSION, Privilege.DEPLOY)
)
_REACH = {ResourceType.CATALOG: Privilege.USE_CATALOG, ResourceType.SCHEMA: Privilege.USE_SCHEMA}


@dataclass(frozen=True)
class ResourceGrant:
    """One grant of one principal, as decisions need it."""

    resource_id: str
    privilege: Privilege
    effect: Effect


@dataclass(frozen=True)
class Decision:
    """Whether it is allowed, and which grant (or lack of one) decided."""

    allowed: bool
    explanation: str


@dataclass(frozen=True)
class Scope:
    """What a list may show: ids (of any level) on which a principal has, or is denied, a privilege.

    A row is visible if `SYSTEM_ID`, its id or the id of a container is in `allowed`, or one of `owners` owns one of
    them, and none of these is in `denied`. `everything` short-cuts both for the owner of the system.
    """

    principal_id: str
    allowed: frozenset[str]
    denied: frozenset[str]
    everything: bool = False
    groups: frozenset[str] = frozenset()

    @property
    def owners(self) -> list[str]:
        """Ids of the principal and of its groups."""
        return sorted(self.groups | {self.principal_id} - {""})


Held = frozenset[tuple[str, Privilege, Effect]]
"""Grants as decisions look them up."""


@dataclass(frozen=True)
class Party:
    """One principal or group: what it was given itself, and the ids of the groups that it is directly in."""

    name: str
    grants: tuple[ResourceGrant, ...] = ()
    groups: tuple[str, ...] = ()
    disabled: bool = False
    is_group: bool = False

    @cached_property
    def held(self) -> Held:
        """Its own grants."""
        return frozenset((grant.resource_id, grant.privilege, grant.effect) for grant in self.grants)


_UNKNOWN = Party("")


@dataclass(frozen=True)
class Holder:
    """For whom decisions are made: a principal with every group it is in.

    Attributes:
        id: of the principal.
        parties: the principal itself, then its groups, by id.
    """

    id: str
    parties: Mapping[str, Party]

    @classmethod
    def alone(cls, principal_id: str, grants: Iterable[ResourceGrant]) -> Holder:
        """Return a principal without groups."""
        return cls(principal_id, {principal_id: Party("", tuple(grants))})

    @property
    def disabled(self) -> bool:
        """Whether the principal may do nothing."""
        return self.parties[self.id].disabled

    def holds(self, resource_id: str, privilege: Privilege, effect: Effect) -> str | None:
        """Tell through whom it holds a grant: nothing for itself, ` to group 'x'` for a group; None if it does not."""
        for party_id, party in self.parties.items():
            if (resource_id, privilege, effect) in party.held:
                return "" if party_id == self.id else f" to group {party.name!r}"
        return None

    def owns(self, link: Link) -> str | None:
        """Tell through whom it owns a resource: nothing for itself, ` through group 'x'` for a group; None if it does not."""
        for party_id, party in self.parties.items():
            owner = party_id != "" and link.owner_id == party_id
            if owner or (link.id, Privilege.OWNERSHIP, Effect.ALLOW) in party.held:
                return "" if party_id == self.id else f" through group {party.name!r}"
        return None


def decide(holder: Holder, privilege: Privilege, chain: Chain) -> Decision:
    """Decide whether somebody has `privilege` on the first link of `chain`."""
    if holder.disabled:
        return Decision(allowed=False, explanation="the principal is disabled")
    for position, link in enumerate(chain):
        needed = _REACH.get(link.type)
        if needed and (position > 0 or privilege in _MAKES_INSIDE):
            decision = _decide_directly(holder, needed, chain[position:])
            if not decision.allowed:
                return decision
    return _decide_directly(holder, privilege, chain)


def _decide_directly(holder: Holder, privilege: Privilege, chain: Chain) -> Decision:
    whose = holder.holds(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)
    if whose is not None:
        return Decision(allowed=True, explanation=f"owner of the system{whose.replace(' to ', ' through ')}")
    for link in chain:
        whose = holder.holds(link.id, privilege, Effect.DENY)
        if whose is not None:
            return Decision(allowed=False, explanation=f"{privilege} is denied on {_label(link)}{whose}")
    for link in chain:
        whose = holder.owns(link)
        if whose is not None:
            return Decision(allowed=True, explanation=f"owner of {_label(link)}{whose}")
    for link in chain:
        whose = holder.holds(link.id, privilege, Effect.ALLOW)
        if whose is not None:
            return Decision(allowed=True, explanation=f"{privilege} is granted on {_label(link)}{whose}")
    return Decision(allowed=False, explanation=f"nobody granted {privilege} on {_label(chain[0])} or above")


def _label(link: Link) -> str:
    return f"{link.type.replace('_', ' ')} {link.name!r}" if link.name else f"the {link.type}"


class Grants:
    """The grants of every principal, in memory, kept fresh by a watcher; decisions come from here alone.

    Args:
        bound: seconds without confirmation after which nothing is decided any more (fail closed).
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(self, *, bound: float = 30.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bound = bound
        self._monotonic = monotonic
        self._principals: dict[str, tuple[str, tuple[ResourceGrant, ...]]] = {}
        self._parties: dict[str, Party] = {}
        self._holders: dict[str, Holder] = {}  # made when asked for; none outlives a change
        self._ids: dict[str, str] = {}
        self._confirmed: float | None = None
        self._condition = asyncio.Condition()
        self._changes = 0
        self.revision = 0

    @property
    def complete(self) -> bool:
        """Whether everything was received at least once."""
        return self._confirmed is not None

    @property
    def changes(self) -> int:
        """Number of changes seen so far; see `wait_change`."""
        return self._changes

    def principals(self) -> Mapping[str, tuple[str, tuple[ResourceGrant, ...]]]:
        """Return name and own grants of every principal and group, by id."""
        return self._principals

    def id_of(self, name: str) -> str | None:
        """Return the id of the principal or group with this name, or None if there is none."""
        return self._ids.get(name)

    def name_of(self, principal_id: str) -> str:
        """Return what a principal or group is called now; nothing if there is none with this id."""
        return self._parties.get(principal_id, _UNKNOWN).name

    def holder(self, principal_id: str) -> Holder:
        """Return a principal with every group it is in; of an unknown one nothing is known."""
        known = self._holders.get(principal_id)
        if known is None:
            parties: dict[str, Party] = {}
            pending = [principal_id]
            while pending:
                party_id = pending.pop()
                if party_id not in parties:
                    parties[party_id] = self._parties.get(party_id, _UNKNOWN)
                    pending += parties[party_id].groups
            known = Holder(principal_id, parties)
            if principal_id in self._parties:
                self._holders[principal_id] = known
        return known

    def holders(self) -> Iterable[Holder]:
        """Return everybody who can act: every principal that is no group."""
        return (self.holder(key) for key, party in self._parties.items() if not party.is_group)

    def replace(
        self,
        principal_id: str,
        name: str,
        grants: Iterable[ResourceGrant],
        *,
        groups: Iterable[str] = (),
        disabled: bool = False,
        is_group: bool = False,
    ) -> None:
        """Set everything that is known of one principal or group."""
        party = Party(name, tuple(grants), tuple(groups), disabled, is_group)
        if self._parties.get(principal_id) != party:
            self._parties[principal_id] = party
            self._principals[principal_id] = (name, party.grants)
            self._ids[name] = principal_id
            self._changed()

    def remove(self, principal_id: str) -> None:
        """Forget a principal."""
        removed = self._parties.pop(principal_id, None)
        if removed is not None:
            del self._principals[principal_id]
            if self._ids.get(removed.name) == principal_id:
                del self._ids[removed.name]
            self._changed()

    def _changed(self) -> None:
        self._holders.clear()
        self._changes += 1

    def retain(self, principal_ids: Iterable[str]) -> None:
        """Forget every principal but these."""
        for principal_id in self._principals.keys() - set(principal_ids):
            self.remove(principal_id)

    async def mark_fresh(self, revision: int) -> None:
        """Note that everything up to `revision` is here, and wake who waits for changes."""
        self.revision = revision
        first = self._confirmed is None
        self._confirmed = self._monotonic()
        self._changes += first
        async with self._condition:
            self._condition.notify_all()

    async def wait_change(self, seen: int) -> int:
        """Wait until `changes` differs from `seen` and return it."""
        async with self._condition:
            await self._condition.wait_for(lambda: self._changes != seen)
        return self._changes

    def decide(self, principal_id: str, privilege: Privilege, chain: Chain) -> Decision:
        """Decide for one principal.

        Raises:
            PermissionsStale: governance has not confirmed the grants for longer than the bound.
        """
        self._require_fresh()
        if not _token_gives(principal_id, privilege):
            return Decision(
                allowed=False, explanation=f"the token is limited to other privileges than {privilege}"
            )
        return decide(self.holder(principal_id), privilege, chain)

    def require(self, principal: Principal, privilege: Privilege, chain: Chain) -> None:
        """Refuse unless the principal has the privilege on the first link of the chain.

        Raises:
            PermissionDenied: it has not.
            PermissionsStale: as `decide`.
        """
        decision = self.decide(principal.id, privilege, chain)
        if not decision.allowed:
            error = PermissionDenied(privilege, chain[0].type, chain[0].name, decision.explanation)
            error.resource_id = chain[0].id
            raise error

    def scope(self, principal_id: str, privilege: Privilege) -> Scope:
        """Return what a list under `privilege` may show to a principal.

        Raises:
            PermissionsStale: as `decide`.
        """
        self._require_fresh()
        holder = self.holder(principal_id)
        if holder.disabled or not _token_gives(principal_id, privilege):
            return Scope(principal_id, frozenset(), frozenset((SYSTEM_ID,)))
        held = frozenset().union(*(party.held for party in holder.parties.values()))
        gives = (privilege, Privilege.OWNERSHIP)
        return Scope(
            principal_id,
            allowed=frozenset(on for on, what, effect in held if effect is Effect.ALLOW and what in gives),
            denied=frozenset(on for on, what, effect in held if effect is Effect.DENY and what is privilege),
            everything=(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW) in held,
            groups=frozenset(holder.parties.keys() - {principal_id}),
        )

    def require_active(self, principal: Principal, *, stale: bool = False) -> None:
        """Refuse a principal that is disabled.

        Args:
            principal: who calls.
            stale: whether what was last known is good enough.

        Raises:
            TokenInvalid: it is.
            PermissionsStale: as `decide`, unless `stale`.
        """
        if not stale:
            self._require_fresh()
        if self._parties.get(principal.id, _UNKNOWN).disabled:
            raise TokenInvalid(f"the principal {principal.name!r} is disabled")

    def _require_fresh(self) -> None:
        if self._confirmed is None:
            raise PermissionsStale(float(0))
        age = self._monotonic() - self._confirmed
        if age > self._bound:
            raise PermissionsStale(age)


def _token_gives(principal_id: str, privilege: Privilege) -> bool:
    """Return whether the token of the call being served gives its own principal a privilege; reaching in is always given."""
    try:
        caller = current_call().principal
    except LookupError:  # background work serves no call
        return True
    if caller.id != principal_id or caller.privileges is None or privilege in _REACH.values():
        return True
    return privilege in caller.privileges


class Missing(Exception):
    """The resource of a request does not exist; `nearest` is the chain of its nearest existing container.

    Whoever lacks the privilege there must not learn whether the resource exists: it gets PERMISSION_DENIED, everybody
    else `error`.
    """

    def __init__(self, error: DomainError, nearest: Chain) -> None:
        super().__init__(str(error))
        self.error = error
        self.nearest = nearest


@dataclass(frozen=True)
class Found:
    """A resource of a request that was read as a whole on the way to its chain, so that nobody has to read it again.

    Attributes:
        chain: what the decision is about: the resource itself, or one of its containers.
        resource: what the service makes of the row.
    """

    chain: Chain
    resource: Any


@dataclass(frozen=True)
class Permit:
    """That a call may do something to a resource, as the permission layer found it.

    Attributes:
        chain: the resource then, with its containers.
        resource: the value that came with the chain; None if the resolver made none.
    """

    grants: Grants
    principal: Principal
    privilege: Privilege
    chain: Chain
    resource: Any = None

    def confirm(self, chain: Chain) -> None:
        """Decide again about the resource as it is now; see `Call.confirm`.

        Raises:
            PermissionDenied: it is another one, or elsewhere, and the caller may not do this to it.
            PermissionsStale: as `Grants.decide`.
        """
        if chain != self.chain:
            self.grants.require(self.principal, self.privilege, chain)


@dataclass(frozen=True)
class Public:
    """Anybody, without a token."""


@dataclass(frozen=True)
class Authenticated:
    """Any caller with a valid token; the rules of the service decide the rest.

    Attributes:
        endless: whether it is a stream that ends only when somebody ends it; a server that stops does so at once.
    """

    endless: bool = field(default=False, compare=False)  # no part of who may call


@dataclass(frozen=True)
class Services:
    """Only services of this installation."""


@dataclass(frozen=True)
class Requires:
    """Callers with a privilege on the resource that `resolve` finds in the request.

    Attributes:
        privilege: what they need.
        resolve: finds the resource.
        endless: as that of `Authenticated`.
    """

    privilege: Privilege
    resolve: Callable[[Any], Awaitable[Chain | Found]]
    endless: bool = field(default=False, compare=False)


Rule = Public | Authenticated | Services | Requires
AccessTable = Mapping[str, Rule]
"""RPC name to rule. A server refuses to start when one of its RPCs is missing."""

PUBLIC = Public()
AUTHENTICATED = Authenticated()
AUTHENTICATED_WATCH = Authenticated(endless=True)
SERVICES = Services()


async def authorize(rule: Rule, principal: Principal, grants: Grants, request: Any) -> Permit | None:
    """Apply a rule to a request of an authenticated principal, and return what was permitted if that is about a resource.

    Raises:
        PermissionDenied: the rule refuses.
        TokenInvalid: the caller is disabled.
        PermissionsStale: grants have not been confirmed for longer than the bound. Services are served nevertheless: what they
            tell each other keeps predictions alive while governance is away.
        DomainError: the resource does not exist and the caller may know that.
    """
    if not isinstance(rule, Public):
        grants.require_active(principal, stale=isinstance(rule, Services))
    if isinstance(rule, Services) and principal.kind != "service":
        raise PermissionDenied("being a service", ResourceType.SYSTEM, "")
    if not isinstance(rule, Requires):
        return None
    try:
        resolved = await rule.resolve(request)
    except Missing as missing:
        grants.require(principal, rule.privilege, _as_if_it_existed(missing))
        raise missing.error from None
    found = resolved if isinstance(resolved, Found) else Found(resolved, None)
    grants.require(principal, rule.privilege, found.chain)
    return Permit(grants, principal, rule.privilege, found.chain, found.resource)


def _as_if_it_existed(missing: Missing) -> Chain:
    """Return the chain that the missing resource would have, so that a refusal reads as for one that exists."""
    kind = ResourceType(missing.error.metadata.get("resource_type", ResourceType.SYSTEM))
    name = missing.error.metadata.get("name", "").removeprefix("models:/")
    if kind is ResourceType.MODEL_VERSION:  # rights on versions are decided on their model
        kind, name = ResourceType.MODEL, name.partition("/")[0].partition("@")[0]
    parts = name.split(".")
    containers = [(ResourceType.SCHEMA, ".".join(parts[:2])), (ResourceType.CATALOG, parts[0])][
        3 - min(len(parts), 3) :
    ]
    existing = {link.type for link in missing.nearest}
    phantoms = [Link(kind, "", name), *(Link(type_, "", name_) for type_, name_ in containers)]
    return (*(link for link in phantoms if link.type not in existing), *missing.nearest)
