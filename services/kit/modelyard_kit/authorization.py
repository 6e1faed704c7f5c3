"""Who may call an RPC: the rules that a service's access table is made of, and how they are applied to a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_kit.access import Chain, Link, Privilege, ResourceType
from modelyard_kit.auth import Principal
from modelyard_kit.errors import DomainError, PermissionDenied
from modelyard_kit.grants import Grants


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
