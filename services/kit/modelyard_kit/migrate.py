"""Brings a service's database to the newest form: Alembic, one lock, several starters welcome."""

from __future__ import annotations

from importlib import resources

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

_LOCK = 0x6D6F64656C  # any constant: taken only for migrations of the same database


async def upgrade(dsn: str, package: str) -> None:
    """Apply every migration in `<package>/migrations/versions` that the database lacks.

    Args:
        dsn: as `Database.connect`.
        package: import name of the service, `modelyard_catalog`.
    """
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(_upgrade, package)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str) -> None:
    with (
        resources.as_file(resources.files("modelyard_kit") / "alembic") as environment,
        resources.as_file(resources.files(package) / "migrations" / "versions") as versions,
    ):
        config = Config()
        config.set_main_option("script_location", str(environment).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", str(versions).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
