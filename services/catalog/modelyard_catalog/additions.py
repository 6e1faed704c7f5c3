"""One statement that adds versions, however many.

With their metrics, their events and the claims of the requests that make them; and it counts them on their models. That is one round
trip: each costs more than what PostgreSQL does meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Update,
    Uuid,
    bindparam,
    column,
    func,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from modelyard_catalog.models import Json, ModelVersion
from modelyard_catalog.rows import metadata_to_json, signature_to_json
from modelyard_catalog.tables import metrics, model_versions, models
from modelyard_kit import idempotency, outbox
from modelyard_kit.prepared import Prepared
from modelyard_kit.records import insert_records

Row = dict[str, Any]


Told = Sequence[tuple[outbox.Event, Sequence[str]]]
"""Events, each with its scope."""


class Repeated(Exception):
    """A request that was to make a version has made one before."""


async def add(
    connection: AsyncConnection,
    versions: Sequence[ModelVersion],
    told: Told,
    claims: Sequence[idempotency.Claim] = (),
) -> None:
    """Insert versions of models that this transaction has locked.

    Args:
        connection: the transaction.
        versions: what is added.
        told: the events that tell of it.
        claims: those of the requests that make them.

    Raises:
        Repeated: a request came before, or comes twice; the transaction is of no use any more.
        IntegrityError: a version has a number or a label of another version.
        LimitExceeded: a request id is too long.
    """
    measured = [
        metric_row(version, name, value) for version in versions for name, value in version.metrics.items()
    ]
    rows = {
        **_counts(versions),
        "versions": [_version_row(version) for version in versions],
        "metrics": measured,
        "events": outbox.records_of(told),
        "claims": idempotency.records_of(claims),
    }
    try:
        await _ADD.execute(connection, rows)
    except IntegrityError as error:
        if getattr(error.orig, "constraint_name", None) == idempotency.CLAIMED:
            raise Repeated from error
        raise
    outbox.announce(connection)


def metric_row(version: ModelVersion, name: str, value: Json) -> Row:
    """Return the row of a metric."""
    return {
        "version_id": version.id,
        "model_id": version.model.id,
        "name": name,
        "value": value,
        "number": _number(value),
    }


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _version_row(version: ModelVersion) -> Row:
    time = version.create_time.isoformat()
    return {
        "id": version.id,
        "model_id": version.model.id,
        "number": version.number,
        "description": version.description,
        "tags": dict(version.tags),
        "revision": 1,
        "create_time": time,
        "update_time": time,
        "state": version.state,
        "state_message": version.state_message,
        "artifact_digest": version.artifact_digest,
        "runtime": version.runtime,
        "signature": signature_to_json(version.signature),
        "provenance": None if version.provenance is None else asdict(version.provenance),
        "metadata": metadata_to_json(version.metadata),
        "author_id": version.author_id,
        "author_name": version.author_name,
        "label": version.label,
        "copied_from": version.copied_from,
        "copied_from_id": version.copied_from_id,
    }


def _counts(versions: Sequence[ModelVersion]) -> dict[str, list[Any]]:
    """Return what becomes of the rows of the models of new versions: one array for each column."""
    counts: dict[str, tuple[int, int, datetime]] = {}
    for version in versions:
        more, last, _ = counts.get(version.model.id, (0, 0, version.create_time))
        counts[version.model.id] = (more + 1, max(last, version.number), version.create_time)
    more_of, last_of, time_of = (list(values) for values in zip(*counts.values(), strict=True))
    return {"model_ids": list(counts), "more": more_of, "last": last_of, "times": time_of}


def _count() -> Update:
    """Build the update of models. By arrays: of a JSON array PostgreSQL expects so many rows that it would read all models."""
    types: dict[str, TypeEngine[Any]] = {
        "model_ids": Uuid(as_uuid=False),
        "more": BigInteger(),
        "last": BigInteger(),
        "times": DateTime(timezone=True),
    }
    arrays = (bindparam(name, type_=ARRAY(kind)) for name, kind in types.items())
    columns = (column(name, kind) for name, kind in types.items())
    rows = func.unnest(*arrays).table_valued(*columns).render_derived(name="counted")
    return (
        update(models)
        .where(models.c.id == rows.c.model_ids)
        .values(
            latest_version=rows.c.last,
            revision=models.c.revision + rows.c.more,
            update_time=rows.c.times,
        )
    )


_VERSION_COLUMNS = (
    "id", "model_id", "number", "description", "tags", "revision", "create_time", "update_time", "state", "state_message",
    "artifact_digest", "runtime", "signature", "provenance", "metadata", "author_id", "author_name", "label", "copied_from",
    "copied_from_id",
)  # fmt: skip
_METRIC_COLUMNS = ("version_id", "model_id", "name", "value", "number")
_ADD = Prepared(
    insert_records(metrics, _METRIC_COLUMNS, parameter="metrics").add_cte(
        idempotency.claiming("claims").cte("claiming"),
        _count().cte("counting"),
        insert_records(model_versions, _VERSION_COLUMNS, parameter="versions").cte("adding"),
        outbox.appending("events").cte("telling"),
    )
)
