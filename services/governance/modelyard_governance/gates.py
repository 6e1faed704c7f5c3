"""Gates: whether a policy lets a version be used, what it lacks, and the override for emergencies."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import conditions
from modelyard_governance import policy as policies
from modelyard_governance.approvals import Approvals
from modelyard_governance.gate_models import (
    CardEvidence,
    Evidence,
    Explanation,
    Facts,
    Override,
    OverrideGate,
)
from modelyard_governance.models import Approval, Directory, Gate, GatedAction, GateQuestion, Version
from modelyard_governance.store import overrides as rows
from modelyard_kit import limits
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

_READY = "READY"


class Gates:
    """The use cases of gates. That the caller may was checked before.

    Args:
        database: where overrides are.
        directory: finds versions.
        approvals: knows policies and where versions stand.
        evidence: collects facts, for policies that ask for them.
        cards: knows the model cards, for the same.
        clock: the time.
    """

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        approvals: Approvals,
        evidence: Evidence,
        cards: CardEvidence,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._approvals = approvals
        self._evidence = evidence
        self._cards = cards
        self._clock = clock

    async def decide(self, call: Call, question: GateQuestion) -> Gate:
        """Decide, and remember it if an override decided.

        Raises:
            NotFound: the version is not there any more, and its policy asks for facts about it.
            PeerUnavailable: a service that knows such facts cannot be reached.
        """
        version = Version(question.chain, question.author_id, "", _READY)
        found = await self._look(version, question.action, question.aliases)
        if found.override is not None:
            await self._note_use(call, found.override)
        unmet = tuple(
            f"{one.name}: {one.problem}" if one.problem else one.name
            for one in found.conditions
            if not one.met
        )
        where = found.policy.resource.name if found.policy else ""
        return Gate(allowed=found.allowed, unmet=() if found.allowed else unmet, policy=where)

    async def explain(self, reference: str, action: GatedAction, aliases: tuple[str, ...]) -> Explanation:
        """Tell what the gate would say now, and why.

        Raises:
            NotFound: there is no such version.
            PeerUnavailable: a service that knows it cannot be reached.
        """
        version = await self._directory.version(reference)
        return await self._look(version, action, aliases)

    async def override(self, call: Call, command: OverrideGate) -> Override:
        """Let a version pass a gate for a while.

        Raises:
            NotFound: there is no such version.
            InvalidState: it is not READY.
            LimitExceeded: too many overrides of it count at once.
            PeerUnavailable: the catalog cannot be reached.
        """
        version = await self._directory.version(command.reference)
        link, now = version.chain[0], self._clock()
        if version.state != _READY:
            raise InvalidState("model_version", link.name, state=version.state, wanted=_READY)
        override = Override(
            id=new_id(),
            version=link,
            action=command.action,
            aliases=command.aliases,
            reason=command.reason,
            principal_id=call.principal.id,
            principal=call.principal.name,
            create_time=now,
            expire_time=now + command.lifetime,
        )

        async def work(connection: AsyncConnection) -> None:
            limits.check("gate_overrides", await rows.count_live(connection, link.id, now=now) + 1)
            await rows.add(connection, override)
            await append(connection, _event("overridden", override, call))

        await self._database.in_tx(work)
        return override

    async def _look(self, version: Version, action: GatedAction, aliases: tuple[str, ...]) -> Explanation:
        policy, approval = await self._approvals.standing_of(version)
        if policy is None or not policies.covers(policy, action, aliases):
            return Explanation(True, policy, gated=False, conditions=(), facts={}, override=None)
        facts: Facts = {}
        results = policies.approval_conditions(approval, policy)
        if policy.conditions:
            facts = {
                **await self._evidence.facts(version),
                "card": await self._cards.evidence(version.chain[0]),
                "approvals": _approvals(approval),
                "now": self._clock(),
            }
            results += await asyncio.to_thread(conditions.evaluate, policy.conditions, facts)
        if all(one.met for one in results):
            return Explanation(True, policy, gated=True, conditions=results, facts=facts, override=None)
        override = await self._overriding(version, action, aliases)
        return Explanation(override is not None, policy, True, results, facts, override)

    async def _overriding(
        self, version: Version, action: GatedAction, aliases: tuple[str, ...]
    ) -> Override | None:
        """Return the override that counts: of this action, and for aliases of all of them."""
        version_id, now = version.chain[0].id, self._clock()
        live = await self._database.read(lambda connection: rows.live(connection, version_id, now=now))
        fitting = (one for one in live if one.action is action and set(aliases) <= set(one.aliases))
        return next(fitting, None)

    async def _note_use(self, call: Call, override: Override) -> None:
        await self._database.in_tx(
            lambda connection: append(connection, _event("override_used", override, call))
        )


def _approvals(approval: Approval) -> Facts:
    reviewers = [review.reviewer for review in approval.reviews][: conditions.LIST_LENGTH]
    return {
        "state": str(approval.state),
        "count": approval.approvals,
        "required": approval.required_approvals,
        "reviewers": reviewers,
    }


def _event(verb: str, override: Override, call: Call) -> Event:
    data = {
        "override_id": override.id,
        "action": str(override.action),
        "aliases": list(override.aliases),
        "reason": override.reason,
        "by": override.principal,
        "expire_time": override.expire_time.isoformat(),
    }
    return Event(f"governance.gate.{verb}", override.version, call.principal, call.request_id, data)
