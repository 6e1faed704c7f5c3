"""What is asked of each catalog, and what the answers must have, counted by PostgreSQL itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import asyncpg

from modelyard.aio import AsyncClient
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from tests.bench.catalog_calls import Job, Question
from tests.bench.catalog_rows import BEGIN, STEP_SECONDS, Rows
from tests.bench.catalog_suite import Installation

PAGE = 50
# Models that get new versions: as many callers as there are do not wait for each other.
WRITTEN = 64
READ = 500


@dataclass(frozen=True)
class Search:
    """A page of the wide model as a caller asks for it, and the same condition in SQL, to count what it must find."""

    filter: str
    sql: str
    order_by: str = ""


def typical(rows: Rows) -> dict[str, Search]:
    """Return the five searches that the budgets are for."""
    begin, end = _time(rows, 0.6), _time(rows, 0.7)
    return {
        "tag": Search("tags.team = 'team-3'", "tags ->> 'team' = 'team-3'"),
        "metric": Search(
            "metrics.accuracy > 0.9",
            "id IN (SELECT version_id FROM metrics WHERE name = 'accuracy' AND number > 0.9)",
            "metrics.accuracy desc",
        ),
        "text": Search("description ILIKE '%DROPOUT%'", "description LIKE '%dropout%'"),
        "state and time": Search(
            f"state = 'READY' AND create_time >= '{begin}' AND create_time < '{end}'",
            f"state = 'READY' AND create_time >= '{begin}' AND create_time < '{end}'",
        ),
        "metadata and label": Search(
            "metadata.framework = 'pytorch' AND label LIKE '1.%'",
            "metadata ->> 'framework' = 'pytorch' AND label LIKE '1.%'",
        ),
    }


def further(rows: Rows) -> dict[str, Search]:
    """Return searches that are measured, but by no budget."""
    some = rows.size // 20 * 10  # a version of the wide model
    return {
        "one run by its tag": Search(f"tags.run = 'run-{some}'", f"tags ->> 'run' = 'run-{some}'"),
        "order of a metric": Search("", "true", "metrics.accuracy desc"),
        "commit": Search(
            f"provenance.git_commit = '{_md5(f'c{some}')}'", f"provenance ->> 'git_commit' = md5('c{some}')"
        ),
        "rare text": Search(f"description ILIKE 'RUN {some}:%'", f"description LIKE 'run {some}:%'"),
    }


def _time(rows: Rows, part: float) -> str:
    """Return the time at which a part of the versions was there."""
    seconds = round(rows.wide * part) * STEP_SECONDS
    return (datetime.fromisoformat(BEGIN) + timedelta(seconds=seconds)).astimezone(UTC).isoformat()


def _md5(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def written(rows: Rows) -> list[int]:
    """Return the numbers of the models that get new versions."""
    return list(range(1, min(WRITTEN, rows.models) + 1))


async def upload(client: AsyncClient, rows: Rows) -> str:
    """Store an artifact for the models that get new versions, and return its digest."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.bin").write_bytes(b"a model")
        for model in written(rows):
            artifact = await client.artifacts.upload(rows.name(model), folder, progress=False)
    return artifact.digest


async def jobs(here: Installation, size: int, bearer: str, digest: str) -> dict[str, Job]:
    """Return what is asked of the catalog of a size, by name."""
    rows, target, random = Rows(size), here.address(size), Random(size)
    names = [rows.name(model) for model in written(rows)]
    gets, aliases = [], []
    for _ in range(READ):
        model = random.randint(1, rows.models)
        number = random.randint(1, rows.versions_of(model))
        gets.append(_get(f"{rows.name(model)}/{number}", f"{rows.name(model)}/{number}"))
        aliases.append(
            _get(f"{rows.name(model)}@champion", f"{rows.name(model)}/{max(1, rows.versions_of(model) - 5)}")
        )
    found = {
        "get version": Job(target, "GetModelVersion", gets, bearer),
        "resolve alias": Job(target, "GetModelVersion", aliases, bearer),
        "create version": Job(
            target, "CreateModelVersion", [_create(name) for name in names], bearer, unique=True
        ),
        "create with artifact": Job(
            target, "CreateModelVersion", [_create(name, digest) for name in names], bearer, unique=True
        ),
        "create in one model": Job(target, "CreateModelVersion", [_create(names[0])], bearer, unique=True),
    }
    counts = await _counts(here.dsn(size), typical(rows) | further(rows))
    for name, search in (typical(rows) | further(rows)).items():
        request = pb.ListModelVersionsRequest(
            model=rows.name(0), page_size=PAGE, filter=search.filter, order_by=search.order_by
        )
        question = Question(request.SerializeToString(), rows=min(PAGE, counts[name]))
        found[f"search: {name}"] = Job(target, "ListModelVersions", [question], bearer)
    return found


async def _counts(dsn: str, searches: Mapping[str, Search]) -> dict[str, int]:
    connection = await asyncpg.connect(dsn)
    wide = "SELECT count(*) FROM model_versions WHERE model_id = md5('model 0')::uuid"
    try:
        return {
            name: await connection.fetchval(f"{wide} AND {search.sql}") for name, search in searches.items()
        }
    finally:
        await connection.close()


def _get(reference: str, name: str) -> Question:
    request = pb.GetModelVersionRequest(name=reference)
    return Question(request.SerializeToString(), has=name.encode())


def _create(model: str, digest: str = "") -> Question:
    request = pb.CreateModelVersionRequest(
        model=model,
        artifact_digest=digest,
        description="a version",
        runtime="sklearn",
        tags={"run": "run-x", "team": "team-3"},
    )
    for name in ("accuracy", "f1", "loss", "auc"):
        request.metrics[name].number_value = 0.5
    return Question(request.SerializeToString(), has=f"{model}/".encode())
