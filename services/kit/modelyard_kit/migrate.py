"""Brings a service's database to the newest form: Alembic, one lock, several starters welcome."""

from __future__ import annotations

from importlib import resources

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

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
            if await _revision(connection) != newest(package):
                await connection.run_sync(_upgrade, package)
    finally:
        await engine.dispose()


def newest(package: str) -> str:
    """Return the newest revision of a service, which is what the name of its file begins with."""
    versions = resources.files(package) / "migrations" / "versions"
    return max(file.name.partition("_")[0] for file in versions.iterdir() if file.name.endswith(".py"))


async def _revision(connection: AsyncConnection) -> str | None:
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _upgrade(connection: Connection, package: str) -> None:
    # Alembic takes a tenth of the time a service needs to start; most find a database that has its newest form.
    from alembic import command
    from alembic.config import Config

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
