"""Who may do what: privileges along the chain of containers, decided from memory.

A privilege on a resource is held on everything inside it, now and later. Rules, in this order:

1. the owner of the system may do everything;
2. a DENY of the privilege anywhere on the chain refuses;
3. the owner of any link of the chain may do everything with it;
4. an ALLOW of the privilege anywhere on the chain allows;
5. everything else is refused.

To reach into a catalog or schema one also needs USE_CATALOG or USE_SCHEMA there, by the same rules.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelyard_kit.auth import Principal
from modelyard_kit.errors import DomainError, PermissionDenied, PermissionsStale


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

    A row is visible if `SYSTEM_ID`, its id or the id of a container is in `allowed`, or the principal owns one of
    them, and none of these is in `denied`. `everything` short-cuts both for the owner of the system.
    """

    principal_id: str
    allowed: frozenset[str]
    denied: frozenset[str]
    everything: bool = False


def decide(
    principal_id: str, grants: Iterable[ResourceGrant], privilege: Privilege, chain: Chain
) -> Decision:
    """Decide whether a principal with these grants has `privilege` on the first link of `chain`."""
    return _decide(principal_id, _held(grants), privilege, chain)


Held = frozenset[tuple[str, Privilege, Effect]]
"""Grants as decisions look them up."""


def _held(grants: Iterable[ResourceGrant]) -> Held:
    return frozenset((grant.resource_id, grant.privilege, grant.effect) for grant in grants)


def _decide(principal_id: str, held: Held, privilege: Privilege, chain: Chain) -> Decision:
    for position, link in enumerate(chain):
        needed = _REACH.get(link.type)
        if needed and (position > 0 or privilege in _MAKES_INSIDE):
            decision = _holds(principal_id, held, needed, chain[position:])
            if not decision.allowed:
                return decision
    return _holds(principal_id, held, privilege, chain)


def _holds(principal_id: str, held: Held, privilege: Privilege, chain: Chain) -> Decision:
    if (SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW) in held:
        return Decision(allowed=True, explanation="owner of the system")
    for link in chain:
        if (link.id, privilege, Effect.DENY) in held:
            return Decision(allowed=False, explanation=f"{privilege} is denied on {_label(link)}")
    for link in chain:
        owned = link.owner_id == principal_id and principal_id != ""
        if owned or (link.id, Privilege.OWNERSHIP, Effect.ALLOW) in held:
            return Decision(allowed=True, explanation=f"owner of {_label(link)}")
    for link in chain:
        if (link.id, privilege, Effect.ALLOW) in held:
            return Decision(allowed=True, explanation=f"{privilege} is granted on {_label(link)}")
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
        self._held: dict[str, Held] = {}
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
        """Return name and grants of every principal, by id."""
        return self._principals

    def id_of(self, name: str) -> str | None:
        """Return the id of the principal with this name, or None if there is none."""
        return self._ids.get(name)

    def name_of(self, principal_id: str) -> str:
        """Return what a principal is called now; nothing if there is none with this id."""
        return self._principals.get(principal_id, ("", ()))[0]

    def replace(self, principal_id: str, name: str, grants: Iterable[ResourceGrant]) -> None:
        """Set everything that is granted to one principal."""
        entry = (name, tuple(grants))
        if self._principals.get(principal_id) != entry:
            self._principals[principal_id] = entry
            self._held[principal_id] = _held(entry[1])
            self._ids[name] = principal_id
            self._changes += 1

    def remove(self, principal_id: str) -> None:
        """Forget a principal."""
        removed = self._principals.pop(principal_id, None)
        if removed is not None:
            del self._held[principal_id]
            if self._ids.get(removed[0]) == principal_id:
                del self._ids[removed[0]]
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
        return _decide(principal_id, self._held.get(principal_id, frozenset()), privilege, chain)

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
        _, grants = self._principals.get(principal_id, ("", ()))
        allowed = {
            grant.resource_id
            for grant in grants
            if grant.effect is Effect.ALLOW and grant.privilege in (privilege, Privilege.OWNERSHIP)
        }
        denied = {
            grant.resource_id
            for grant in grants
            if grant.effect is Effect.DENY and grant.privilege is privilege
        }
        everything = ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW) in grants
        return Scope(principal_id, frozenset(allowed), frozenset(denied), everything)

    def _require_fresh(self) -> None:
        if self._confirmed is None:
            raise PermissionsStale(float(0))
        age = self._monotonic() - self._confirmed
        if age > self._bound:
            raise PermissionsStale(age)


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
    """Callers with a privilege on the resource that `resolve` finds in the request."""

    privilege: Privilege
    resolve: Callable[[Any], Awaitable[Chain | Found]]


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
        DomainError: the resource does not exist and the caller may know that.
    """
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
