"""Who may do what: privileges along the chain of containers.

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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


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
REACH = {ResourceType.CATALOG: Privilege.USE_CATALOG, ResourceType.SCHEMA: Privilege.USE_SCHEMA}


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


UNKNOWN = Party("")
"""Of whom nothing is known."""


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

    @cached_property
    def held(self) -> Held:
        """All grants, its own and those of its groups: most questions are about one that nobody gave."""
        return frozenset[tuple[str, Privilege, Effect]]().union(
            *(party.held for party in self.parties.values())
        )

    def holds(self, resource_id: str, privilege: Privilege, effect: Effect) -> str | None:
        """Tell through whom it holds a grant: nothing for itself, ` to group 'x'` for a group; None if it does not."""
        if (resource_id, privilege, effect) not in self.held:
            return None
        for party_id, party in self.parties.items():
            if (resource_id, privilege, effect) in party.held:
                return "" if party_id == self.id else f" to group {party.name!r}"
        return None

    def owns(self, link: Link) -> str | None:
        """Tell through whom it owns a resource: nothing for itself, ` through group 'x'` for a group; None if it does not."""
        if (
            link.owner_id not in self.parties
            and (link.id, Privilege.OWNERSHIP, Effect.ALLOW) not in self.held
        ):
            return None
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
        needed = REACH.get(link.type)
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
