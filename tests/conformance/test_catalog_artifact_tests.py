"""What the artifact service tells of introspection tests, as versions show it and are found by it, on real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from modelyard.api.catalog.v1 import model_pb2
from modelyard_catalog import render
from modelyard_catalog.commands import (
    ArtifactTestsChange,
    Browse,
    CopyVersion,
    Delete,
    Once,
    UpdateVersion,
    VersionRef,
)
from modelyard_catalog.models import ArtifactTests, ArtifactTestsState, Json, ModelMetadata, ModelVersion
from modelyard_catalog.tables import artifact_tests
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.errors import InvalidField
from modelyard_kit.grants import Grants
from tests.conformance.catalog_stack import ADA, DIGEST, IRIS, CatalogStack

OTHER = "sha256:" + "b" * 64
RESULTS: dict[str, Json] = {"score_py": {"success": True, "category": "Mandatory Files Check"}}
OWN = ModelMetadata(algorithm="tree", test_results={"mine": True})


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    await stack.create_model(*IRIS)
    yield stack
    await stack.close()


@pytest.fixture
async def grants() -> Grants:
    """Ada owns everything."""
    grants = Grants()
    grants.replace(ADA.principal.id, "ada", [ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)])
    await grants.mark_fresh(1)
    return grants


async def tell(
    stack: CatalogStack,
    digest: str,
    state: ArtifactTestsState,
    sequence: int,
    results: dict[str, Json] = RESULTS,
) -> None:
    await stack.tests.set([ArtifactTestsChange(digest, ArtifactTests(state, results), sequence)])


async def numbers(stack: CatalogStack, wanted: str) -> Sequence[int]:
    rows, _ = await stack.versions.page(IRIS, Browse(size=50, filter=wanted, order_by="number"))
    return [row.number for row in rows]


async def known(stack: CatalogStack) -> list[str]:
    query = select(artifact_tests.c.digest)
    return list((await stack.db.read(lambda connection: connection.execute(query))).scalars())


async def test_versions_made_before_and_after_are_found(stack: CatalogStack) -> None:
    before = await stack.create_version()
    assert before.artifact_tests is None
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 5)
    await tell(stack, OTHER, ArtifactTestsState.FAILED, 6)
    await stack.create_version()
    await stack.create_version(digest=OTHER)
    await stack.create_version(digest="sha256:" + "c" * 64)
    assert await numbers(stack, "artifact_tests = 'PASSED'") == [1, 2]
    assert await numbers(stack, "artifact_tests = 'failed' OR artifact_tests IS NULL") == [3, 4]
    with pytest.raises(InvalidField, match="one of 'PASSED', 'FAILED'"):
        await numbers(stack, "artifact_tests = 'GOOD'")
    after = await stack.get("prod.ml.iris/1")
    assert after.artifact_tests == ArtifactTests(ArtifactTestsState.PASSED, RESULTS)
    assert (after.etag, after.update_time) == (before.etag, before.update_time)


async def test_what_is_late_changes_nothing_and_a_repetition_is_harmless(stack: CatalogStack) -> None:
    await stack.create_version()
    for state, sequence in (
        (ArtifactTestsState.FAILED, 5),
        (ArtifactTestsState.PASSED, 4),
        (ArtifactTestsState.FAILED, 5),
    ):
        await tell(stack, DIGEST, state, sequence)
        assert await numbers(stack, "artifact_tests = 'FAILED'") == [1]
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 7)
    assert await numbers(stack, "artifact_tests = 'PASSED'") == [1]
    await stack.tests.set([])


async def test_the_results_are_shown_in_place_of_what_was_written(stack: CatalogStack) -> None:
    await stack.create_version(metadata=OWN)
    await stack.create_version()
    assert dict(_shown(await stack.get("prod.ml.iris/1"))) == {"mine": True}
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 1)
    for number in (1, 2):
        shown = _message(await stack.get(f"prod.ml.iris/{number}"))
        assert shown.artifact_tests == shown.ARTIFACT_TESTS_PASSED
        assert shown.metadata.test_results["score_py"]["success"] is True
        assert "mine" not in shown.metadata.test_results
    assert _message(await stack.get("prod.ml.iris/1")).metadata.algorithm == "tree"


def _message(version: ModelVersion) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(**render.version(version))


def _shown(version: ModelVersion) -> dict[str, object]:
    return dict(_message(version).metadata.test_results)


async def test_what_is_sent_back_as_it_was_shown_is_not_made_the_versions_own(
    stack: CatalogStack, grants: Grants
) -> None:
    version = await stack.create_version(metadata=OWN)
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 1)
    updates = stack.updates(grants)
    back = replace(OWN, algorithm="forest", test_results=RESULTS)
    command = UpdateVersion(VersionRef(IRIS, 1), "", {"metadata": back})
    changed = await updates.update_version(ADA, command)
    assert changed.metadata == replace(OWN, algorithm="forest")
    assert changed.etag != version.etag
    assert (await updates.update_version(ADA, command)).etag == changed.etag
    # Results of one's own are kept, for the time when the artifact has none.
    other = replace(OWN, test_results={"yours": False})
    changed = await updates.update_version(ADA, UpdateVersion(VersionRef(IRIS, 1), "", {"metadata": other}))
    assert changed.metadata == other


async def test_a_copy_has_them_with_the_artifact_and_its_own_metadata(
    stack: CatalogStack, grants: Grants
) -> None:
    await stack.create_version(metadata=OWN)
    await tell(stack, DIGEST, ArtifactTestsState.FAILED, 1)
    await stack.create_model("prod", "ml", "rose")
    command = CopyVersion(VersionRef(IRIS, 1), ("prod", "ml", "rose"), "", Once("", ""))
    copy = await stack.copies(grants).copy(ADA, command)
    assert copy.artifact_tests == ArtifactTests(ArtifactTestsState.FAILED, RESULTS)
    assert copy.metadata == OWN


async def test_they_go_with_the_last_version(stack: CatalogStack) -> None:
    for _ in range(2):
        await stack.create_version()
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 1)
    await tell(stack, OTHER, ArtifactTestsState.PASSED, 2)
    for number, left in ((1, {DIGEST, OTHER}), (2, {OTHER})):
        await stack.deletions.delete(ADA, ModelVersion, Delete(VersionRef(IRIS, number), "", force=False))
        stack.shift += timedelta(days=31)
        assert await stack.purge.sweep() == 1
        assert set(await known(stack)) == left


async def test_what_was_told_for_a_version_on_its_way_stays(stack: CatalogStack) -> None:
    await stack.create_version()
    stack.shift = -timedelta(days=31)
    await stack.deletions.delete(ADA, ModelVersion, Delete(VersionRef(IRIS, 1), "", force=False))
    stack.shift = timedelta()
    await tell(stack, DIGEST, ArtifactTestsState.PASSED, 1)
    assert await stack.purge.sweep() == 1
    assert await known(stack) == [DIGEST]
    await stack.create_version()
    assert await numbers(stack, "artifact_tests = 'PASSED'") == [2]
