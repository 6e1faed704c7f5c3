"""The SQL of inspections. A row says what is known, or that it is to be found out; whoever works on it holds a lease."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from modelyard_artifact.inspection_models import (
    FileFormat,
    Finding,
    Findings,
    Inspection,
    InspectionState,
    IntrospectionTest,
    Job,
    Scan,
    Severity,
    TestOutcome,
    TestsOutcome,
)
from modelyard_artifact.tables import TESTS_SEQUENCE, artifact_references, inspections
from modelyard_kit.auth import Principal
from modelyard_kit.db import notify_after_commit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_kit.auth import Call

CHANNEL = "modelyard_inspections"
TELL_CHANNEL = "modelyard_tests"

_NOTHING_YET: Mapping[str, Any] = {
    "state": InspectionState.PENDING.value,
    "message": "",
    "attempts": 0,
    "lease_owner": None,
    "lease_until": None,
    "end_time": None,
    "oci": None,
    "tests": None,
    "scan": None,
    "scanner": "",
    "tests_json": "",
    "details": null(),
}


async def want(connection: AsyncConnection, digest: str, call: Call, now: datetime) -> None:
    """Notes that an artifact is to be inspected, unless that was noted before."""
    values = _asked_by(call, now) | {"digest": digest, "state": InspectionState.PENDING.value}
    await connection.execute(insert(inspections).values(values).on_conflict_do_nothing())
    await _wake(connection)


async def want_again(connection: AsyncConnection, digest: str, call: Call, now: datetime) -> bool:
    """Forgets what is known of an artifact, so that it is found out again; False if that is going on."""
    change = update(inspections).where(inspections.c.digest == digest, ~_is_pending())
    changed = await connection.execute(change.values({**_NOTHING_YET, **_asked_by(call, now)}))
    await _wake(connection)
    return bool(changed.rowcount)


async def get(connection: AsyncConnection, digest: str) -> Inspection | None:
    """Reads the inspection of an artifact."""
    row = (await connection.execute(select(inspections).where(inspections.c.digest == digest))).one_or_none()
    return _inspection(row) if row else None


async def take(connection: AsyncConnection, owner: str, lease: timedelta) -> Job | None:
    """Takes the oldest inspection that nobody works on; other processes doing the same are not waited for."""
    free = (
        select(inspections.c.digest)
        .where(
            _is_pending(), or_(inspections.c.lease_until.is_(None), inspections.c.lease_until < func.now())
        )
        .order_by(inspections.c.request_time)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = (
        update(inspections)
        .where(inspections.c.digest == free)
        .values(lease_owner=owner, lease_until=func.now() + lease, attempts=inspections.c.attempts + 1)
    )
    row = (await connection.execute(taken.returning(inspections))).one_or_none()
    if row is None:
        return None
    return Job(
        row.digest,
        owner,
        row.attempts,
        Principal(row.actor_id, row.actor_name, row.actor_kind),
        row.request_id,
    )


async def renew(connection: AsyncConnection, job: Job, lease: timedelta) -> bool:
    """Keeps others off for longer; False when the inspection is not this process's any more."""
    change = update(inspections).where(_is_of(job)).values(lease_until=func.now() + lease)
    return bool((await connection.execute(change)).rowcount)


async def release(connection: AsyncConnection, job: Job, *, after: timedelta, counts: bool) -> None:
    """Gives an inspection back, to be taken again after some time; `counts` says whether it was an attempt."""
    change = update(inspections).where(_is_of(job))
    attempts = inspections.c.attempts - (0 if counts else 1)
    await connection.execute(
        change.values(lease_owner=None, lease_until=func.now() + after, attempts=attempts)
    )
    await _wake(connection)


async def finish(
    connection: AsyncConnection, job: Job, found: Findings | None, message: str, now: datetime
) -> bool:
    """Writes what was found out, or why nothing could be; False when somebody else has the inspection by now."""
    values: dict[str, Any] = {
        "sequence": TESTS_SEQUENCE.next_value(),
        "message": message,
        "end_time": now,
        "lease_owner": None,
        "lease_until": None,
    }
    if found is None:
        values["state"] = InspectionState.FAILED.value
    else:
        passed = found.tests_passed
        values |= {
            "state": InspectionState.DONE.value,
            "oci": found.oci,
            "tests": None if passed is None else "PASSED" if passed else "FAILED",
            "scan": found.scan.value,
            "scanner": found.scanner,
            "tests_json": found.tests_json,
            "details": {
                "tests": [asdict(test) for test in found.tests],
                "findings": [asdict(finding) for finding in found.findings],
                "formats": [asdict(file) for file in found.formats],
            },
        }
    written = await connection.execute(update(inspections).where(_is_of(job)).values(values))
    notify_after_commit(connection, TELL_CHANNEL)
    return bool(written.rowcount)


async def tell_again(connection: AsyncConnection, digest: str) -> None:
    """Notes that the catalog is to be told how the tests of an artifact ended, if they have, whether it was told or not."""
    change = update(inspections).where(inspections.c.digest == digest, inspections.c.tests.is_not(None))
    if (await connection.execute(change.values(sequence=TESTS_SEQUENCE.next_value()))).rowcount:
        notify_after_commit(connection, TELL_CHANNEL)


async def to_tell(connection: AsyncConnection, limit: int) -> list[TestsOutcome]:
    """What the catalog has not been told of artifacts that versions have or are about to get."""
    columns = inspections.c
    wanted = exists().where(artifact_references.c.digest == columns.digest)
    query = (
        select(columns.digest, columns.tests, columns.tests_json, columns.sequence)
        .where(columns.tests.is_not(None), columns.sequence != columns.told_sequence, wanted)
        .order_by(columns.sequence)
        .limit(limit)
    )
    return [
        TestsOutcome(row.digest, row.tests == "PASSED", row.tests_json, row.sequence)
        for row in await connection.execute(query)
    ]


async def mark_told(connection: AsyncConnection, outcomes: Sequence[TestsOutcome]) -> None:
    """Notes that the catalog knows these; not of one that is to be told again since."""
    of = and_(inspections.c.digest == bindparam("of"), inspections.c.sequence == bindparam("at"))
    rows = [{"of": outcome.digest, "at": outcome.sequence} for outcome in outcomes]
    await connection.execute(update(inspections).where(of).values(told_sequence=bindparam("at")), rows)


async def _wake(connection: AsyncConnection) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, "")))


def _asked_by(call: Call, now: datetime) -> dict[str, Any]:
    return {
        "actor_id": call.principal.id,
        "actor_name": call.principal.name,
        "actor_kind": call.principal.kind,
        "request_id": call.request_id,
        "request_time": now,
    }


def _is_pending() -> ColumnElement[bool]:
    # Written out, because the partial index is found only with a constant.
    return literal_column("state") == literal_column("'PENDING'")


def _is_of(job: Job) -> ColumnElement[bool]:
    return and_(inspections.c.digest == job.digest, inspections.c.lease_owner == job.owner, _is_pending())


def _inspection(row: Any) -> Inspection:
    state = InspectionState(row.state)
    return Inspection(
        digest=row.digest,
        state=state,
        message=row.message,
        found=_findings(row) if state is InspectionState.DONE else None,
        end_time=row.end_time,
    )


def _findings(row: Any) -> Findings:
    return findings_of(
        {
            **row.details,
            "oci": row.oci,
            "scan": row.scan,
            "scanner": row.scanner,
            "tests_json": row.tests_json,
        }
    )


def findings_of(values: Mapping[str, Any]) -> Findings:
    """Findings from JSON values.

    Raises:
        KeyError, TypeError, ValueError: they are no findings.
    """
    return Findings(
        oci=bool(values["oci"]),
        tests=tuple(
            IntrospectionTest(**{**test, "result": TestOutcome(test["result"])}) for test in values["tests"]
        ),
        tests_json=str(values["tests_json"]),
        scan=Scan(values["scan"]),
        findings=tuple(
            Finding(**{**finding, "severity": Severity(finding["severity"])})
            for finding in values["findings"]
        ),
        scanner=str(values["scanner"]),
        formats=tuple(FileFormat(**file) for file in values["formats"]),
    )
