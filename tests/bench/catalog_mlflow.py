"""MLflow's tracking server on the same PostgreSQL, with as many models and versions, in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from modelyard_suite import plan
from modelyard_suite.supervisor import ProcessSpec, Supervisor
from tests.bench.catalog_calls import Job, Question
from tests.bench.catalog_rows import WIDE, Rows
from tests.bench.catalog_suite import Installation

PACKAGES = ("mlflow", "psycopg2-binary")
WORKERS = 4  # what `mlflow server` takes by itself
DATABASE = "mlflow"
_API = "/api/2.0/mlflow"
# Columns that MLflow's own schema has; another version of it may have others, and then the statements fail.
_LOAD = (
    """
    INSERT INTO registered_models (name, creation_time, last_updated_time, description)
    SELECT DISTINCT name, 1767225600000::bigint, 1767225600000::bigint, '' FROM planned
    """,
    """
    INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, current_stage, source, status)
    SELECT name, number, 1767225600000 + g * 1000, 1767225600000 + g * 1000, 'run ' || g || ': on the data of week ' || g % 52,
        'None', 's3://models/' || md5('a' || g), 'READY' FROM planned
    """,
    """
    INSERT INTO model_version_tags (name, version, key, value)
    SELECT name, number, key, value || CASE key WHEN 'run' THEN g WHEN 'team' THEN noise % 8 ELSE noise % 3 END
    FROM planned, (VALUES ('run', 'run-'), ('team', 'team-'), ('stage', 'stage-')) tags (key, value)
    """,
    """
    INSERT INTO registered_model_aliases (name, alias, version)
    SELECT name, alias, greatest(1, max(number) - back)
    FROM planned, (VALUES ('champion', 5), ('challenger', 1)) a (alias, back) GROUP BY name, alias, back
    """,
)


@dataclass(frozen=True)
class Peer:
    """A running server, and what is asked of it."""

    url: str
    version: str

    def jobs(self, models: Sequence[int], rows: int) -> dict[str, Job]:
        """Return what has its like among the calls of the catalog.

        Args:
            models: numbers of the models whose alias is looked up, and that get new versions.
            rows: rows of the page that is searched for.
        """
        names = [f"{model:05}" for model in models]
        tags = [{"key": "run", "value": "run-x"}, {"key": "team", "value": "team-3"}]
        made = [
            {"name": f"m{name}", "source": "s3://models/x", "description": "a version", "tags": tags}
            for name in names
        ]
        search = urlencode({"filter": f"name = '{WIDE}' and tags.team = 'team-3'", "max_results": 50})
        return {
            "create version": Job(
                self.url,
                "create",
                [Question(json.dumps(one).encode(), has=f'"{one["name"]}"'.encode()) for one in made],
                paths=[f"{_API}/model-versions/create"] * len(made),
            ),
            "resolve alias": Job(
                self.url,
                "alias",
                [Question(b"", has=f'"m{name}"'.encode()) for name in names],
                paths=[
                    f"{_API}/registered-models/alias?{urlencode({'name': f'm{name}', 'alias': 'champion'})}"
                    for name in names
                ],
            ),
            "search: tag": Job(
                self.url,
                "search",
                [Question(b"", has=b'"model_versions"', rows=rows)],
                paths=[f"{_API}/model-versions/search?{search}"],
            ),
        }


@asynccontextmanager
async def mlflow(
    here: Installation, rows: Rows, folder: Path, report: Callable[[str], None]
) -> AsyncIterator[Peer]:
    """Run MLflow's server within this block.

    Args:
        here: whose PostgreSQL it uses.
        rows: how many models and versions it gets.
        folder: where its environment is, made if there is none.
        report: told what is done at the moment.
    """
    report("installing MLflow")
    python = await asyncio.to_thread(_install, folder)
    version = await asyncio.to_thread(_version, python)
    report("starting MLflow")
    await here.postgres.ensure_database(DATABASE)
    port = plan.free_port()
    url = f"http://127.0.0.1:{port}"
    store = here.postgres.dsn(DATABASE).replace("postgresql://", "postgresql+psycopg2://")
    command = [
        *(str(python), "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"),
        *("--port", str(port), "--workers", str(WORKERS), "--default-artifact-root", str(here.home.cache)),
        # A worker that takes more than five seconds to start, as on a busy machine, would be killed and started again for ever.
        *("--uvicorn-opts", "--timeout-worker-healthcheck 120"),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    supervisor = Supervisor(here.home.logs, lambda _processes: None)
    spec = ProcessSpec("mlflow", command, environment, is_ready=lambda: asyncio.to_thread(_answers, url))
    try:
        await supervisor.start([[spec]], timeout=180)
        report(f"loading {rows.size:,} versions into MLflow")
        await _load(here.postgres.dsn(DATABASE), rows)
        yield Peer(url, version)
    finally:
        await supervisor.stop()


def _install(folder: Path) -> Path:
    """Make the environment unless it is there, and return its Python."""
    python = folder / "bin" / "python"
    marker = folder / ".complete"
    if not marker.exists():
        beside = Path(sys.executable).parent / "uv"
        uv = str(beside) if beside.exists() else shutil.which("uv")
        if uv is None:
            sys.exit("MLflow is installed with uv, which is neither in .venv nor on PATH: run `make install`")
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True)
        marker.touch()
    return python


def _version(python: Path) -> str:
    query = "import importlib.metadata as m; print(m.version('mlflow'))"
    return subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def _load(dsn: str, rows: Rows) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        await connection.execute(
            f"""
            CREATE UNLOGGED TABLE planned AS
            SELECT g, number, hashint8(g * 7919) & 1048575 AS noise,
                CASE model WHEN 0 THEN '{WIDE}' ELSE 'm' || lpad(model::text, 5, '0') END AS name
            FROM ({rows.numbered()}) numbered
            """
        )
        for statement in _LOAD:
            await connection.execute(statement)
        await connection.execute("DROP TABLE planned")
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
