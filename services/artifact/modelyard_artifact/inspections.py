"""The rules of inspections: ask for one, read it, and the worker that does them one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_artifact import inspection_store, store
from modelyard_artifact.inspection_models import Severity
from modelyard_artifact.inspector import InspectionFailed
from modelyard_kit import outbox
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.errors import DomainError, NotFound
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.inspection_models import Findings, Inspection, Job
    from modelyard_artifact.inspector import Inspector
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import FileEntry
    from modelyard_kit.auth import Call, Principal
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

MAX_ATTEMPTS = 5
LEASE = timedelta(seconds=30)
_POLL_SECONDS = 5.0
_RETRY = timedelta(seconds=30)
_FILES_AT_ONCE = 10_000

_log = structlog.get_logger()


class Inspections:
    """Use cases of inspections."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock

    async def get(self, digest: str, model_name: str) -> Inspection:
        """Reads what is known of an artifact of a model.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
        """
        model = await self._catalog.model(model_name)

        async def work(connection: AsyncConnection) -> Inspection:
            return await _of_model(connection, digest, model.id)

        return await self._database.read(work)

    async def again(self, call: Call, digest: str, model_name: str) -> Inspection:
        """Has an artifact inspected again; the one that is waiting or running, if there is one.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
        """
        model = await self._catalog.model(model_name)
        now = self._clock()

        async def work(connection: AsyncConnection) -> Inspection:
            await _of_model(connection, digest, model.id)
            if await inspection_store.want_again(connection, digest, call, now):
                event = _event("inspection_requested", digest, call.principal, call.request_id, {}, now)
                await outbox.append(connection, event)
            return await _of_model(connection, digest, model.id)

        return await self._database.in_tx(work)


async def _of_model(connection: AsyncConnection, digest: str, model_id: str) -> Inspection:
    artifact = await store.get_artifact(connection, digest, model_id=model_id)
    inspection = await inspection_store.get(connection, digest) if artifact else None
    if inspection is None:
        raise NotFound("artifact", digest)
    return inspection


class InspectionWorker:
    """Takes inspections that wait, one at a time. Any number of processes may do so at once."""

    def __init__(
        self, database: Database, inspector: Inspector, clock: Clock, *, lease: timedelta = LEASE
    ) -> None:
        self._database = database
        self._inspector = inspector
        self._clock = clock
        self._lease = lease
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._database.listen(inspection_store.CHANNEL, self._wake))
            tasks.create_task(self._work_forever())

    async def _work_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                worked = await self.work()
            except (DomainError, SQLAlchemyError, OSError) as error:
                _log.warning("inspection_postponed", error=str(error))
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._wake.wait()

    async def work(self) -> bool:
        """Do one inspection; False when none waits."""

        async def take(connection: AsyncConnection) -> Job | None:
            return await inspection_store.take(connection, new_id(), self._lease)

        job = await self._database.in_tx(take, isolation="READ COMMITTED")
        if job is None:
            return False
        if job.attempts > MAX_ATTEMPTS:
            await self._finish(job, None, f"it was begun {MAX_ATTEMPTS} times and never came to its end")
            return True
        await self._do(job)
        return True

    async def _do(self, job: Job) -> None:
        try:
            files = await self._files(job.digest)
            await failpoint("artifact.inspection.before_start")
            async with self._holding(job):
                found = await self._inspector.inspect(files)
        except InspectionFailed as error:
            await self._finish(job, None, str(error))
        except asyncio.CancelledError:
            await asyncio.shield(self._release(job, after=timedelta(), counts=False))
            raise
        except _LeaseLost:
            return
        except Exception:  # noqa: BLE001  (an engine of blobs may raise anything; the service must not end with it)
            # Content that cannot be read now; the next attempt comes later.
            _log.exception("inspection_postponed", digest=job.digest, attempt=job.attempts)
            await self._release(job, after=_RETRY, counts=True)
        else:
            await failpoint("artifact.inspection.before_finish")
            await self._finish(job, found, "")

    @contextlib.asynccontextmanager
    async def _holding(self, job: Job) -> AsyncIterator[None]:
        """Renew the lease for as long as the block runs.

        Raises:
            _LeaseLost: somebody wanted the inspection anew, or took it over; the block is cancelled.
        """
        body = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 3)
                if not await self._renewed(job):
                    lost = True
                    if body:
                        body.cancel()
                    return

        task = asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if lost and body and not body.uncancel():
                raise _LeaseLost from None
            raise
        finally:
            task.cancel()

    async def _renewed(self, job: Job) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            return await inspection_store.renew(connection, job, self._lease)

        try:
            return await self._database.in_tx(work, isolation="READ COMMITTED")
        except (SQLAlchemyError, OSError) as error:
            _log.warning("inspection_lease_not_renewed", digest=job.digest, error=str(error))
            return True  # whoever takes it over makes `finish` do nothing

    async def _files(self, digest: str) -> Sequence[FileEntry]:
        files: list[FileEntry] = []

        async def work(connection: AsyncConnection) -> list[FileEntry]:
            return await store.list_files(connection, digest, files[-1].path if files else "", _FILES_AT_ONCE)

        while page := await self._database.read(work):
            files += page
        return files

    async def _release(self, job: Job, *, after: timedelta, counts: bool) -> None:
        async def work(connection: AsyncConnection) -> None:
            await inspection_store.release(connection, job, after=after, counts=counts)

        await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _finish(self, job: Job, found: Findings | None, message: str) -> None:
        now = self._clock()

        async def work(connection: AsyncConnection) -> bool:
            written = await inspection_store.finish(connection, job, found, message, now)
            if written:
                told = _told(found, message)
                event = _event("inspected", job.digest, job.actor, job.request_id, told, now)
                await outbox.append(connection, event)
            return written

        # READ COMMITTED: all hangs on the one row that is written under its lease.
        written = await self._database.in_tx(work, isolation="READ COMMITTED")
        _log.info("inspected", digest=job.digest, done=found is not None, message=message, written=written)


class _LeaseLost(Exception):
    """The inspection is somebody else's now."""


def _told(found: Findings | None, message: str) -> dict[str, object]:
    if found is None:
        return {"state": "FAILED", "message": message}
    passed = found.tests_passed
    return {
        "state": "DONE",
        "message": message,
        "oci": found.oci,
        "tests": "" if passed is None else "PASSED" if passed else "FAILED",
        "failed_tests": [test.id for test in found.tests if test.result == "FAILED"],
        "scan": found.scan.value,
        "scanner": found.scanner,
        "findings": {
            severity.value: sum(finding.severity is severity for finding in found.findings)
            for severity in Severity
        },
    }


def _event(
    verb: str, digest: str, actor: Principal, request_id: str, data: Mapping[str, object], now: datetime
) -> outbox.Event:
    return outbox.Event(
        type=f"artifact.artifact.{verb}",
        resource=Link(ResourceType.ARTIFACT, digest, digest),
        actor=actor,
        request_id=request_id,
        data=data,
        time=now,
    )
