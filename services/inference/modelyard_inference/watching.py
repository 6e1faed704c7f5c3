"""Lets callers watch a deployment: as it is now, and after each change.

The reconciler looks at everything whenever something may have changed, and tells of every look; a watch is woken when its deployment
differs from the look before, and then reads it anew. So nothing that is sent is older than what was sent before, and a deployment that
nobody watches costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import errors
from modelyard_inference.models import Deployment
from modelyard_inference.store import InferenceStore
from modelyard_kit.access import Privilege
from modelyard_kit.auth import Call
from modelyard_kit.db import Database
from modelyard_kit.errors import PeerUnavailable
from modelyard_kit.grants import Grants
from modelyard_kit.watches import Watches

_READERS = 4
"""Connections of the pool that watches may hold together; the rest is for everybody else."""


@dataclass(frozen=True)
class WatchOptions:
    """How watches behave.

    Attributes:
        heartbeat: seconds without a change after which the deployment is sent again, so that silence means a dead connection.
        longest: seconds after which a watch ends, so that its caller comes back with a token that was checked again.
    """

    heartbeat: float = 10.0
    longest: float = 900.0


@dataclass
class _Watched:
    """A deployment that is watched: as the reconciler saw it last, and who waits to hear of a change."""

    seen: Deployment | None = None
    wakes: set[asyncio.Event] = field(default_factory=set)


class Watching:
    """Use case of watching a deployment.

    Args:
        db: the database.
        store: its tables.
        grants: what principals may do.
        watches: how many streams run, of all kinds together.
        options: how watches behave.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        grants: Grants,
        watches: Watches | None = None,
        options: WatchOptions | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._store = store
        self._grants = grants
        self._options = options or WatchOptions()
        self._monotonic = monotonic
        self._running = watches or Watches()
        self._readers = asyncio.Semaphore(_READERS)
        self._watched: dict[str, _Watched] = {}

    def publish(self, deployments: Iterable[Deployment]) -> None:
        """Wake who watches one of all deployments that is not as it was, or is gone."""
        if not self._watched:
            return
        now = {d.id: d for d in deployments if d.id in self._watched}
        for deployment_id, watched in self._watched.items():
            found = now.get(deployment_id)
            if found is None or found != watched.seen:
                watched.seen = found
                for wake in watched.wakes:
                    wake.set()

    async def watch(self, call: Call, name: str) -> AsyncGenerator[Deployment]:
        """Yield a deployment now, after each change, and again when there was none for a time; ends after the longest time.

        Raises:
            NotFound: there is none of that name, or it is gone.
            PermissionDenied: the caller may not see it any more.
            PermissionsStale: governance has not confirmed the grants for too long.
            TooManyWatches: of the caller or in all.
            PeerUnavailable: the database cannot be reached.
        """
        with self._running.counted(call.principal.id):
            deployment = await self._read(name)
            wake = asyncio.Event()
            watched = self._watched.setdefault(deployment.id, _Watched())
            watched.wakes.add(wake)
            try:
                async with aclosing(self._follow(deployment, wake)) as following:
                    async for found in following:
                        self._grants.require(call.principal, Privilege.READ_METADATA, found.chain)
                        yield found
            finally:
                watched.wakes.discard(wake)
                if not watched.wakes:
                    self._watched.pop(deployment.id, None)

    async def _follow(self, deployment: Deployment, wake: asyncio.Event) -> AsyncGenerator[Deployment]:
        # Read once more: it may have changed before anybody was to be woken.
        sent, ends = None, self._monotonic() + self._options.longest
        while self._monotonic() < ends:
            wake.clear()
            found = await self._read(deployment.name)
            if found.id != deployment.id:  # another one has the name now
                raise errors.no_deployment(deployment.name)
            if found != sent:
                sent = found
                yield found
                continue
            try:
                async with asyncio.timeout(self._options.heartbeat):
                    await wake.wait()
            except TimeoutError:
                yield found

    async def _read(self, name: str) -> Deployment:
        try:
            async with self._readers:
                found = await self._db.read(lambda connection: self._store.deployment(connection, name))
        except (SQLAlchemyError, OSError) as error:
            raise PeerUnavailable("database") from error
        if found is None:
            raise errors.no_deployment(name)
        return found
