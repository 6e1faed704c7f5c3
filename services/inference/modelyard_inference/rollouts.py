"""What callers may do with a rollout that is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import errors, origins
from modelyard_inference.canary import Rejection, Rollout
from modelyard_inference.commands import ControlRollout, RolloutVerb
from modelyard_inference.deeds import Deed, content, event, remember
from modelyard_inference.models import Change, Deployment
from modelyard_inference.store import InferenceStore
from modelyard_kit import outbox
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.faults import failpoint


class Rollouts:
    """Use cases of rollouts.

    Args:
        db: the database.
        store: its tables.
        clock: the time.
        wake: called after every committed change, so that the reconciler looks at once.
    """

    def __init__(self, db: Database, store: InferenceStore, clock: Clock, wake: Callable[[], None]) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._wake = wake

    async def control(self, call: Call, command: ControlRollout) -> Deployment:
        """Pause, resume, promote or abort the rollout that is under way; repeating is harmless while it is.

        Raises:
            NotFound: there is none of that name.
            EtagMismatch: it has changed since the caller read it.
            InvalidState: no rollout in steps is under way.
        """

        async def work(connection: AsyncConnection) -> Deployment:
            before = await self._store.deployment(connection, command.name)
            if before is None:
                raise errors.no_deployment(command.name)
            if command.etag and command.etag != before.etag:
                raise errors.changed_meanwhile(before, command.etag)
            if before.rollout is None or before.rollout.watching:
                raise errors.no_rollout(before)
            if command.verb is RolloutVerb.ABORT:
                return await self._abort(connection, call, before, command)
            return await self._steer(connection, call, before, before.rollout, command)

        changed = await self._db.in_tx(work)
        await failpoint("inference.rollout.controlled")
        self._wake()
        return changed

    async def _steer(
        self,
        connection: AsyncConnection,
        call: Call,
        before: Deployment,
        rollout: Rollout,
        command: ControlRollout,
    ) -> Deployment:
        promoted = rollout.promoted or command.verb is RolloutVerb.PROMOTE
        after = replace(rollout, paused=command.verb is RolloutVerb.PAUSE, promoted=promoted)
        if after == rollout:
            return before
        await origins.set_rollout(connection, before.id, after)
        data = {"verb": command.verb.value, "step": rollout.step + 1, "reason": command.reason}
        await outbox.append(connection, event("rollout_controlled", call, before, data))
        return replace(before, rollout=after)

    async def _abort(
        self, connection: AsyncConnection, call: Call, before: Deployment, command: ControlRollout
    ) -> Deployment:
        origin = await origins.find(connection, before.id)
        if origin is None:  # never with a rollout under way: it begins from something that answers
            raise errors.no_rollout(before)
        why = f": {command.reason}" if command.reason else ""
        kept = {version.id for _, version in origin.targets}
        versions = {target.wanted.id for target in before.targets} - kept
        rejection = Rejection(f"the rollout was aborted by {call.principal.name}{why}", frozenset(versions))
        back = origins.taken_back(before, origin, rejection)
        after = replace(back, update_time=self._clock())
        await self._store.update_deployment(connection, after)
        await self._store.replace_targets(connection, after.id, after.targets)
        await self._store.route_changed(connection, after.id)  # the size limit may be another again
        data = {"before": content(before), "after": content(after)}
        await remember(connection, call, Deed(Change.ROLLED_BACK, command.reason), after, data)
        return after
