"""Fixtures of the whole test suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.framework import folders

if TYPE_CHECKING:
    from tests.framework.postgres import TestPostgres

# Else every process that a test starts compiles all it imports again: 6 s instead of 2 for each service.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

folders.use()

# How long an example takes depends on what else the machine does; no test asserts a time.
settings.register_profile("modelyard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelyard")

# Services that run in the test process log through the standard library, whose lines pytest keeps for failed tests.
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
)

# Processes share the files: kinds of whose files some take minutes come first, and the shortest last, so that none waits at the
# end for another. Files of a kind stay together, because they share what it starts.
_KINDS = ("faults", "behaviour", "conformance", "install", "property", "contract", "unit")
_LONGEST = (
    "test_catalog_feed",
    "test_blob_stores",
    "test_direct_transfer",
    "test_gateway_edges",
    "test_killed_processes",
    "test_s3_faults",
    "test_killed_uploads",
    "test_suite",
    "test_readme",
)
_TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest kinds first, and of each kind the longest files; the rest stays in its order."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        kind = item.path.relative_to(_TESTS).parts[0]
        return _KINDS.index(kind) if kind in _KINDS else len(_KINDS), item.path.stem not in _LONGEST

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the download cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TestPostgres]:
    """A real PostgreSQL for this test process."""
    from tests.framework.postgres import postgres

    with postgres() as server:
        yield server


@pytest.fixture
def fresh_database(postgres_server: TestPostgres) -> Iterator[Callable[[str], str]]:
    """`fresh_database("modelyard_catalog")`: address of a new database with that service's migrations applied."""
    made: list[str] = []

    def fresh(package: str) -> str:
        made.append(postgres_server.fresh(package))
        return made[-1]

    yield fresh
    for address in made:
        postgres_server.drop(address)
