"""Who may predict: grants compiled to the list of principals that RBAC lets pass. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelyard_gateway.table import RouteTable
from modelyard_kit.access import Chain, Effect, Privilege, ResourceGrant, decide

Principals = Mapping[str, tuple[str, tuple[ResourceGrant, ...]]]


def allowed_principals(table: RouteTable, principals: Principals) -> dict[str, tuple[str, ...]]:
    """Return, for each deployment id, the sorted ids of the principals that hold EXECUTE on it."""
    reach = {
        principal_id: (frozenset(_allowing(grants)), grants)
        for principal_id, (_, grants) in principals.items()
    }
    return {
        route.deployment[0].id: tuple(
            sorted(
                principal_id
                for principal_id, (resources, grants) in reach.items()
                if _concerned(principal_id, resources, route.deployment)
                and decide(principal_id, grants, Privilege.EXECUTE, route.deployment).allowed
            )
        )
        for route in table.routes
    }


def _allowing(grants: Iterable[ResourceGrant]) -> Iterable[str]:
    wanted = (Privilege.EXECUTE, Privilege.OWNERSHIP)
    return (
        grant.resource_id for grant in grants if grant.effect is Effect.ALLOW and grant.privilege in wanted
    )


def _concerned(principal_id: str, resources: frozenset[str], chain: Chain) -> bool:
    """Sort out cheaply the many principals that nobody ever gave anything here."""
    return any(link.id in resources or link.owner_id == principal_id for link in chain)
