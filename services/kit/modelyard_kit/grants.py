"""The grants of everybody in memory: where services decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from modelyard_kit.access import (
    REACH,
    SYSTEM_ID,
    UNKNOWN,
    Chain,
    Decision,
    Effect,
    Holder,
    Party,
    Privilege,
    ResourceGrant,
    Scope,
    decide,
)
from modelyard_kit.auth import Principal, current_call
from modelyard_kit.errors import PermissionDenied, PermissionsStale, TokenInvalid


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

    async def received(self) -> None:
        """Wait until everything was received at least once: before, nothing can be decided."""
        async with self._condition:
            await self._condition.wait_for(lambda: self.complete)

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
        return self._parties.get(principal_id, UNKNOWN).name

    def holder(self, principal_id: str) -> Holder:
        """Return a principal with every group it is in; of an unknown one nothing is known."""
        known = self._holders.get(principal_id)
        if known is None:
            parties: dict[str, Party] = {}
            pending = [principal_id]
            while pending:
                party_id = pending.pop()
                if party_id not in parties:
                    parties[party_id] = self._parties.get(party_id, UNKNOWN)
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
        held = holder.held
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
        if self._parties.get(principal.id, UNKNOWN).disabled:
            raise TokenInvalid(f"the principal {principal.name!r} is disabled")

    def _require_fresh(self) -> None:
        if self._confirmed is None:
            raise PermissionsStale(None)
        age = self._monotonic() - self._confirmed
        if age > self._bound:
            raise PermissionsStale(age)


def _token_gives(principal_id: str, privilege: Privilege) -> bool:
    """Return whether the token of the call being served gives its own principal a privilege; reaching in is always given."""
    try:
        caller = current_call().principal
    except LookupError:  # background work serves no call
        return True
    if caller.id != principal_id or caller.privileges is None or privilege in REACH.values():
        return True
    return privilege in caller.privileges
