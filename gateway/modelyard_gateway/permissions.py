"""Who may predict: grants compiled to the list of principals that RBAC lets pass. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard_gateway.table import RouteTable
from modelyard_kit.access import Chain, Effect, Holder, Privilege, decide


def allowed_principals(table: RouteTable, holders: Iterable[Holder]) -> dict[str, tuple[str, ...]]:
    """Return, for each deployment id, the sorted ids of the principals that hold EXECUTE on it."""
    reach = [(holder, frozenset(_allowing(holder))) for holder in holders if not holder.disabled]
    return {
        route.deployment[0].id: tuple(
            sorted(
                holder.id
                for holder, resources in reach
                if _concerned(holder, resources, route.deployment)
                and decide(holder, Privilege.EXECUTE, route.deployment).allowed
            )
        )
        for route in table.routes
    }


def _allowing(holder: Holder) -> Iterable[str]:
    wanted = (Privilege.EXECUTE, Privilege.OWNERSHIP)
    for party in holder.parties.values():
        for resource_id, privilege, effect in party.held:
            if effect is Effect.ALLOW and privilege in wanted:
                yield resource_id


def _concerned(holder: Holder, resources: frozenset[str], chain: Chain) -> bool:
    """Sort out cheaply the many principals that nobody ever gave anything here."""
    return any(link.id in resources or link.owner_id in holder.parties for link in chain)
