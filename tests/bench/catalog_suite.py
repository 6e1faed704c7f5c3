"""The processes of the catalog's benchmark: one PostgreSQL, governance, artifact, and a catalog for each size, no gateway."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.aio import AsyncClient
from modelyard_kit import migrate
from modelyard_suite import plan, secrets
from modelyard_suite.home import Home
from modelyard_suite.postgres import EmbeddedPostgres
from modelyard_suite.supervisor import ProcessSpec, Supervisor
from tests.bench.catalog_rows import CATALOG, Rows, load

USER = "ada"
PRIVILEGES = ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA", "CREATE_VERSION", "READ_ARTIFACT")
# What the server has beside its own defaults: times of commits tell how late an event is, and long checkpoints load faster.
_POSTGRES = {"track_commit_timestamp": "on", "max_wal_size": "4GB"}
_YEARS = "36500"


@dataclass(frozen=True)
class Installation:
    """What runs.

    Attributes:
        home: where its files are.
        postgres: its database server.
        secret: API token of the user whose calls are measured: no owner of anything but the loaded rows, with grants of its own.
        metrics: address of each catalog's metrics, by size.
    """

    home: Home
    postgres: EmbeddedPostgres
    secret: str
    metrics: Mapping[int, str]

    def address(self, size: int) -> str:
        """Return the socket of the catalog of a size."""
        return self.home.socket(_name(size, list(self.metrics)))

    def dsn(self, size: int) -> str:
        """Return the database of the catalog of a size."""
        return self.postgres.dsn(_database(size))

    def client(self, secret: str) -> AsyncClient:
        """Return a client of the services by their sockets; its catalog is the largest."""
        names = ("governance", "catalog", "artifact")
        addresses = {name: self.home.socket(name) for name in names}
        return AsyncClient(addresses["governance"], token=secret, services=addresses)


@asynccontextmanager
async def installation(sizes: Sequence[int], report: Callable[[str], None]) -> AsyncIterator[Installation]:
    """Start and fill everything, and remove it after this block.

    Args:
        sizes: versions in each catalog.
        report: told what is done at the moment.
    """
    with tempfile.TemporaryDirectory(prefix="my-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        home = Home(Path(folder) / "suite")
        home.prepare()
        Path(folder).chmod(0o711)  # PostgreSQL runs as a user of its own when this runs as root
        secrets.ensure_tokens(home.secrets)
        postgres = EmbeddedPostgres(home.postgres, home.database_sockets)
        postgres.prepare()
        supervisor = Supervisor(home.logs, lambda _processes: None)
        metrics = {size: f"127.0.0.1:{plan.free_port()}" for size in sizes}
        [[database], services, _gateway] = plan.stages(home, plan.Options())
        specs = {spec.name: spec for spec in services}
        try:
            report("starting PostgreSQL and governance")
            options = [part for name, value in _POSTGRES.items() for part in ("-c", f"{name}={value}")]
            database = replace(database, command=[*database.command, *options])
            await supervisor.start([[database], [specs["governance"]]])
            admin = home.token_file(secrets.ADMINISTRATOR).read_text().strip()
            here = Installation(home, postgres, "", metrics)
            async with here.client(admin) as client:
                owner = await client.principals.get(secrets.ADMINISTRATOR)
                await client.principals.create(USER)
                secret = (await client.tokens.create(principal=USER)).secret
            for size in sizes:
                report(f"loading {size:,} versions")
                await postgres.ensure_database(_database(size))
                await migrate.upgrade(here.dsn(size), "modelyard_catalog")
                await load(here.dsn(size), Rows(size), owner.id)
            report("starting the catalogs and artifact")
            catalogs = [_catalog(specs["catalog"], here, size) for size in sizes]
            await supervisor.start([[*catalogs, specs["artifact"]]])
            async with here.client(admin) as client:
                for privilege in PRIVILEGES:
                    await client.grants.create(USER, privilege, CATALOG)
            yield replace(here, secret=secret)
        finally:
            await supervisor.stop()


def _catalog(spec: ProcessSpec, here: Installation, size: int) -> ProcessSpec:
    """Return the catalog of a size: the largest takes the place of the suite's, which its neighbours ask."""
    settings = {
        "MODELYARD_LISTEN": here.address(size),
        "MODELYARD_DATABASE": here.dsn(size),
        "MODELYARD_METRICS_LISTEN": here.metrics[size],
        # The events were made up to be old.
        "MODELYARD_FEED_RETENTION_DAYS": _YEARS,
    }
    name = _name(size, list(here.metrics))
    return replace(
        spec,
        name=name,
        environment={**spec.environment, **settings},
        is_ready=lambda: plan._is_serving(here.address(size)),
    )


def _name(size: int, sizes: Sequence[int]) -> str:
    return "catalog" if size == max(sizes) else f"catalog-{size}"


def _database(size: int) -> str:
    return f"catalog_{size}"
