"""The catalog's purge as a process of its own, for tests that crash it: the address of its database as argument."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from modelyard_kit import faults
from tests.conformance.catalog_stack import CatalogStack


async def sweep(dsn: str) -> None:
    """Purge everything that was deleted, as if its time had come."""
    stack = CatalogStack(dsn)
    stack.shift = timedelta(days=60)
    await stack.purge.sweep()
    await stack.close()


if __name__ == "__main__":
    faults.configure(os.environ["MODELYARD_FAILPOINTS"])
    asyncio.run(sweep(sys.argv[1]))
