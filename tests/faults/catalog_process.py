"""The catalog's purge as a process of its own, for tests that crash it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from multiprocessing.connection import Connection

from tests.conformance.catalog_stack import CatalogStack


def sweep(_: Connection, dsn: str) -> None:
    """Purge everything that was deleted, as if its time had come."""
    asyncio.run(_sweep(dsn))


async def _sweep(dsn: str) -> None:
    stack = CatalogStack(dsn)
    stack.shift = timedelta(days=60)
    await stack.purge.sweep()
    await stack.close()
