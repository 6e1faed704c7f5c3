"""Stands between a service and PostgreSQL: cuts it off, also between a commit and its answer."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_NAME = ".s.PGSQL.5432"
_PIECE = 65_536


@dataclass
class PostgresProxy:
    """A running proxy.

    Attributes:
        dsn: address of the database through it.
        loses: a text of which the next transaction is committed, but nobody hears of it: the connection ends before the answer.
    """

    upstream: Path
    dsn: str
    loses: bytes = b""
    _away: bool = False
    _open: set[StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """End every connection, and take none."""
        self._away = True
        self.end_all()

    def mend(self) -> None:
        """Take connections again."""
        self._away = False

    def end_all(self) -> None:
        """End every connection."""
        for writer in self._open:
            writer.close()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry a connection."""
        if self._away:
            writer.close()
            return
        from_server, to_server = await asyncio.open_unix_connection(str(self.upstream))
        there = {writer, to_server}
        self._open |= there
        losing = asyncio.Event()
        with suppress(OSError):
            await asyncio.gather(
                self._requests(reader, to_server, losing),
                self._answers(from_server, writer, to_server, losing),
            )
        for each in there:
            each.close()
        self._open -= there

    async def _requests(self, reader: StreamReader, to_server: StreamWriter, losing: asyncio.Event) -> None:
        seen = b""
        while data := await reader.read(_PIECE):
            seen += data
            if b"COMMIT;" in data:
                if self.loses and self.loses in seen:
                    self.loses = b""
                    losing.set()
                seen = b""
            to_server.write(data)
            await to_server.drain()
        to_server.close()

    async def _answers(
        self, from_server: StreamReader, writer: StreamWriter, to_server: StreamWriter, losing: asyncio.Event
    ) -> None:
        while (data := await from_server.read(_PIECE)) and not losing.is_set():
            writer.write(data)
            await writer.drain()
        writer.close()
        to_server.close()


@asynccontextmanager
async def postgres_proxy(dsn: str, folder: Path) -> AsyncIterator[PostgresProxy]:
    """Run a proxy with its socket in a folder within this block."""
    address, _, sockets = dsn.rpartition("host=")
    proxy = PostgresProxy(Path(sockets) / _NAME, f"{address}host={folder}")
    server = await asyncio.start_unix_server(proxy.serve, folder / _NAME)
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
