"""Every story runs on every stack that can tell it: in one process, and on real processes behind Envoy."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from modelyard.aio import AsyncClient
from tests.framework.postgres import TestPostgres
from tests.framework.stack import InProcess, Processes, Stack


@pytest.fixture(scope="package")
def in_process(postgres_server: TestPostgres) -> Iterator[InProcess]:
    """The services in a thread of this test process."""
    with InProcess.in_thread(postgres_server) as stack:
        yield stack


@pytest.fixture(scope="package")
def processes() -> Iterator[Processes]:
    """Everything that `modelyard up` starts."""
    with Processes.start() as stack:
        yield stack


@pytest.fixture(params=["in_process", "processes"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each stack in turn."""
    stack: Stack = request.getfixturevalue(request.param)
    return stack


@pytest.fixture
async def admin(stack: Stack) -> AsyncIterator[AsyncClient]:
    """The administrator on the stack."""
    async with stack.admin() as client:
        yield client


@pytest.fixture
async def schema(admin: AsyncClient) -> str:
    """A new schema in a new catalog of the administrator."""
    catalog = f"c{uuid.uuid4().hex[:10]}"
    await admin.catalogs.create(catalog)
    await admin.schemas.create(f"{catalog}.ml")
    return f"{catalog}.ml"
