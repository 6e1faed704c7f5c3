"""Rights that the access table cannot see: on a second resource of a request, or only for some changes."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard_catalog.models import Path
from modelyard_kit.access import Chain, Privilege
from modelyard_kit.auth import Call
from modelyard_kit.authorization import Requires, authorize
from modelyard_kit.grants import Grants


class Chains(Protocol):
    """Finds resources by name; `modelyard_catalog.access.Resolvers`."""

    async def path(self, path: Path) -> Chain:
        """Return the chain of a catalog, schema or model. Raises Missing."""
        ...


class Authority:
    """Asks for privileges from inside the rules."""

    def __init__(self, grants: Grants, chains: Chains) -> None:
        self._grants = grants
        self._chains = chains

    async def require_on(self, call: Call, privilege: Privilege, path: Path) -> None:
        """Refuse unless the caller has the privilege on what is called so; who lacks it does not learn whether it exists.

        Raises:
            PermissionDenied: it has not.
            NotFound: there is nothing of that name, and the caller may know.
        """

        async def resolve(_: Any) -> Chain:
            return await self._chains.path(path)

        await authorize(Requires(privilege, resolve), call.principal, self._grants, None)

    def require(self, call: Call, privilege: Privilege, chain: Chain) -> None:
        """Refuse unless the caller has the privilege on the first link of a chain; asks nobody, so a transaction may.

        Raises:
            PermissionDenied: it has not.
        """
        self._grants.require(call.principal, privilege, chain)

    def knows(self, principal_id: str) -> bool:
        """Return whether there is a principal with this id."""
        return principal_id in self._grants.principals()
