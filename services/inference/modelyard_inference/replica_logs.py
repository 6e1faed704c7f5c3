"""Lets callers read the logs of replicas: their ends, and what is written from then on.

The launcher knows where logs are; here those of a deployment are joined by time. Logs that are followed are looked at twice a second, and
who the replicas are every two seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import errors, replica_rows
from modelyard_inference.commands import ReadLogs
from modelyard_inference.launchers import Launcher
from modelyard_inference.log_files import Line, Position
from modelyard_inference.models import Deployment
from modelyard_inference.store import InferenceStore
from modelyard_kit.access import Privilege
from modelyard_kit.auth import Call
from modelyard_kit.db import Database
from modelyard_kit.errors import PeerUnavailable
from modelyard_kit.grants import Grants
from modelyard_kit.watches import Watches

Lines = Sequence[tuple[str, Line]]
"""Lines with the ids of their replicas."""

_READERS = 4
"""Connections of the pool that readers may hold together; the rest is for everybody else."""
_FILE_READERS = 4
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
MAX_LINES = 200
"""Lines of one answer; with the bound on a line it fits into a message."""


@dataclass(frozen=True)
class FollowOptions:
    """How logs are followed.

    Attributes:
        period: seconds between two looks at the files.
        refresh: seconds between two looks at who the replicas are.
        heartbeat: seconds without a line after which an answer without lines says that the connection lives.
        longest: seconds after which it ends, so that its caller comes back with a token that was checked again.
    """

    period: float = 0.5
    refresh: float = 2.0
    heartbeat: float = 10.0
    longest: float = 900.0


class ReplicaLogs:
    """Use case of reading logs.

    Args:
        db: the database.
        store: its tables.
        launcher: knows the logs.
        grants: what principals may do.
        watches: how many streams run.
        options: how logs are followed.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        launcher: Launcher,
        grants: Grants,
        watches: Watches,
        options: FollowOptions | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._store = store
        self._launcher = launcher
        self._grants = grants
        self._watches = watches
        self._options = options or FollowOptions()
        self._monotonic = monotonic
        self._readers = asyncio.Semaphore(_READERS)
        self._file_readers = asyncio.Semaphore(_FILE_READERS)

    async def read(self, call: Call, command: ReadLogs) -> AsyncGenerator[Lines]:
        """Yield lines of before, at least one answer, then if wanted what follows.

        Raises:
            NotFound: there is no such deployment or replica, or it is gone.
            PermissionDenied: the caller may not read them any more.
            PermissionsStale: governance has not confirmed the grants for too long.
            TooManyWatches: of the caller or in all.
            PeerUnavailable: the database cannot be reached.
        """
        with self._watches.counted(call.principal.id):
            deployment, replicas = await self._look(command)
            positions: dict[str, Position | None] = {}
            found: list[tuple[str, Line]] = []
            for replica in replicas:
                async with self._file_readers:
                    piece = await self._launcher.log_tail(replica, command.wanted, command.log)
                positions[replica] = piece.position
                found += [(replica, line) for line in piece.lines]
                found = _by_time(found)[max(0, len(found) - command.wanted.tail) :]
            for part in _parts(found) or [()]:
                yield part
            if command.follow:
                async with aclosing(self._follow(call, command, deployment, positions)) as following:
                    async for part in following:
                        yield part

    async def _follow(
        self, call: Call, command: ReadLogs, deployment: Deployment, positions: dict[str, Position | None]
    ) -> AsyncGenerator[Lines]:
        begin = looked = told = self._monotonic()
        while (now := self._monotonic()) < begin + self._options.longest:
            if now >= looked + self._options.refresh:
                looked = now
                deployment = await self._refresh(command, deployment, positions)
            self._grants.require(call.principal, Privilege.DEPLOY, deployment.chain)
            found, more = await self._read_on(command, positions)
            if found or now >= told + self._options.heartbeat:
                told = now
                for part in _parts(_by_time(found)) or [()]:
                    yield part
            if not more:
                await asyncio.sleep(self._options.period)

    async def _read_on(
        self, command: ReadLogs, positions: dict[str, Position | None]
    ) -> tuple[list[tuple[str, Line]], bool]:
        """Return the next lines of all replicas, and whether there are more already; `positions` moves on."""
        found: list[tuple[str, Line]] = []
        more = False
        for replica, position in list(positions.items()):
            async with self._file_readers:
                piece = await self._launcher.log_on(replica, position, command.log)
            positions[replica] = piece.position
            more |= piece.more
            found += [(replica, line) for line in piece.lines if command.wanted.takes(line)]
        return found, more

    async def _refresh(
        self, command: ReadLogs, deployment: Deployment, positions: dict[str, Position | None]
    ) -> Deployment:
        """Take replicas that are new, forget those that are gone, and return the deployment as it is now."""
        found, replicas = await self._look(command)
        if found.id != deployment.id:  # another one has the name now
            raise errors.no_deployment(command.deployment)
        for gone in positions.keys() - set(replicas):
            del positions[gone]
        for replica in replicas:
            positions.setdefault(replica, None)
        return found

    async def _look(self, command: ReadLogs) -> tuple[Deployment, list[str]]:
        """Return the deployment and the ids of the replicas whose logs are wanted."""
        try:
            async with self._readers:
                found = await self._db.read(
                    lambda connection: self._store.deployment(connection, command.deployment)
                )
                if found is None:
                    raise errors.no_deployment(command.deployment)
                rows = await self._db.read(
                    lambda connection: replica_rows.of_deployment(connection, found.id)
                )
        except (SQLAlchemyError, OSError) as error:
            raise PeerUnavailable("database") from error
        ids = [row.id for row in rows if command.replica in ("", row.id)]
        if command.replica and not ids:
            raise errors.no_replica(command.deployment, command.replica)
        return found, ids


def _by_time(lines: Iterable[tuple[str, Line]]) -> list[tuple[str, Line]]:
    """Return lines by time; those of one replica keep their order, also where its clock jumped back."""
    latest: dict[str, datetime] = {}
    timed = []
    for replica, line in lines:
        latest[replica] = max(latest.get(replica, _LONG_AGO), line.time or _LONG_AGO)
        timed.append((latest[replica], replica, line))
    timed.sort(key=lambda one: one[0])
    return [(replica, line) for _, replica, line in timed]


def _parts(lines: Sequence[tuple[str, Line]]) -> list[Lines]:
    return [lines[start : start + MAX_LINES] for start in range(0, len(lines), MAX_LINES)]
