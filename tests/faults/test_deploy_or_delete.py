"""A version is deployed and deleted in the same moment: one of the two wins, and the other says why it did not.

Catalog and inference run with their real rules and databases; what goes between them is called directly, so that a test can hold
either of them at any point.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from modelyard_catalog import deletions as catalog_deletions
from modelyard_catalog import names
from modelyard_catalog.commands import Delete, Resolve, Undelete, VersionRef
from modelyard_catalog.models import ModelVersion, Schema, container_kind
from modelyard_inference import deployments as inference_deployments
from modelyard_inference.commands import ListDeployments
from modelyard_inference.models import Deployment, DeploymentState, Version
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import Contention, DomainError, NotFound, ResourceInUse
from modelyard_kit.filters import Asked
from tests.conformance.catalog_stack import ADA, IRIS, CatalogStack
from tests.framework.inference import FakeUpstream, Inference, call, creation, site

NAME = "prod.ml.iris"
FIRST = VersionRef(IRIS, 1)


class RealCatalog(FakeUpstream):
    """The catalog as it is, for everything that a deletion changes; content and policies are made up."""

    def __init__(self, catalog: CatalogStack) -> None:
        super().__init__()
        self._catalog = catalog

    async def register(self) -> ModelVersion:
        """Make version 1 of a model."""
        await self._catalog.create_model(*IRIS)
        made_up = self.add(1)
        made = await self._catalog.create_version(digest=made_up.artifact_digest)
        self.versions[NAME + "/1"] = replace(made_up, id=made.id, model_id=made.model.id)
        self.schema = made.chain[2:]
        return made

    async def version(self, reference: str) -> Version:
        await self._catalog.versions.get(names.version("name", reference))
        return await super().version(reference)

    async def require_usable(self, version_id: str, schema_id: str) -> None:
        for kind, id_ in ((ResourceType.MODEL_VERSION, version_id), (ResourceType.SCHEMA, schema_id)):
            await self._catalog.namespaces.chain(Resolve(kind, None, id_, for_use=True))

    async def schema_chain(self, name: str) -> Any:
        return (await self._catalog.namespaces.get(Schema, tuple(name.split(".")))).chain


@dataclass
class RealDeployments:
    """What the catalog asks of inference."""

    inference: Inference

    async def running(self, version_ids: Sequence[str]) -> list[str]:
        return [link.name for link in await self.inference.lookups.using(version_ids)]

    async def inside(self, schema: str) -> list[str]:
        asked = ListDeployments(schema, Asked(size=1_000))
        found, _ = await self.inference.lookups.page(call(), asked)
        return [deployment.name for deployment in found]


@dataclass
class Pair:
    """Catalog and inference that know each other."""

    catalog: CatalogStack
    inference: Inference
    version: ModelVersion

    async def delete(self, target: VersionRef | tuple[str, ...] = FIRST) -> Any:
        kind: Any = ModelVersion if isinstance(target, VersionRef) else container_kind(target)
        return await self.catalog.deletions.delete(ADA, kind, Delete(target, "", force=True))

    async def deploy(self) -> Deployment:
        return await self.inference.deployments.create(call(), creation())

    async def until_told(self, text: str) -> Deployment:
        return await self.inference.until(lambda deployment: text in deployment.state_message)

    async def is_deleted(self) -> bool:
        try:
            await self.catalog.get(NAME + "/1")
        except NotFound:
            return True
        return False


class Hold:
    """Holds whoever comes to a failpoint of a module until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

        async def failpoint(passed: str) -> None:
            if passed == name:
                self.reached.set()
                await self.go.wait()

        patch.setattr(module, "failpoint", failpoint)

    async def until_reached(self) -> None:
        await asyncio.wait_for(self.reached.wait(), 60)


@pytest.fixture
async def pair(fresh_database: Callable[[str], str]) -> AsyncIterator[Pair]:
    catalog = CatalogStack(fresh_database("modelyard_catalog"))
    upstream = RealCatalog(catalog)
    version = await upstream.register()
    async with site(fresh_database("modelyard_inference")) as place:
        place.upstream = upstream
        async with place.life() as inference:
            catalog.deletions._deployments = RealDeployments(inference)
            yield Pair(catalog, inference, version)
    await catalog.close()


async def test_a_deployment_that_commits_after_the_question_waits_and_finds_its_version_deleted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Hold(monkeypatch, catalog_deletions, "catalog.delete.asked")
    deletion = asyncio.create_task(pair.delete())
    await asked.until_reached()
    await pair.deploy()
    waiting = await pair.until_told("being deleted")
    assert waiting.state is DeploymentState.CREATING
    asked.go.set()
    await deletion
    failed = await pair.inference.until_state(DeploymentState.FAILED)
    assert f"{NAME}/1 was deleted" in failed.state_message
    assert not await pair.inference.launcher.list()
    # Nothing is lost for good: what comes back is deployed.
    await pair.catalog.deletions.undelete(ADA, Undelete(ResourceType.MODEL_VERSION, pair.version.id))
    await pair.inference.until_state(DeploymentState.ACTIVE)


@pytest.mark.parametrize("target", [FIRST, IRIS, IRIS[:2]], ids=["version", "model", "schema"])
async def test_a_deployment_that_commits_before_the_question_is_found_and_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, target: VersionRef | tuple[str, ...]
) -> None:
    claimed = Hold(monkeypatch, catalog_deletions, "catalog.delete.claimed")
    deletion = asyncio.create_task(pair.delete(target))
    await claimed.until_reached()
    await pair.deploy()
    await pair.until_told("being deleted")
    claimed.go.set()
    with pytest.raises(ResourceInUse, match=f"deployment {NAME}"):
        await deletion
    await pair.inference.until_state(DeploymentState.ACTIVE)
    assert not await pair.is_deleted()


async def test_a_deployment_that_commits_after_the_deletion_finds_its_version_gone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = Hold(monkeypatch, inference_deployments, "inference.deployment.resolved")
    made = asyncio.create_task(pair.deploy())
    await resolved.until_reached()
    await pair.delete()
    resolved.go.set()
    await made
    failed = await pair.inference.until_state(DeploymentState.FAILED)
    assert f"{NAME}/1 was deleted" in failed.state_message
    assert not await pair.inference.launcher.list()


async def test_a_deletion_that_died_holds_a_deployment_up_no_longer_than_its_claim(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it was only very slow, and finds that it may no longer delete."""
    pair.catalog.deletions._claim_time = timedelta(0)
    asked = Hold(monkeypatch, catalog_deletions, "catalog.delete.asked")
    deletion = asyncio.create_task(pair.delete())
    await asked.until_reached()
    await pair.deploy()
    await pair.inference.until_state(DeploymentState.ACTIVE)
    asked.go.set()
    with pytest.raises(Contention):
        await deletion
    assert not await pair.is_deleted()


@pytest.mark.parametrize("seed", range(3))
async def test_at_any_pace_what_is_deployed_is_not_deleted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)

    async def dawdle(_: str) -> None:
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.02, 0.1)))

    monkeypatch.setattr(catalog_deletions, "failpoint", dawdle)
    monkeypatch.setattr(inference_deployments, "failpoint", dawdle)
    for _ in range(6):
        outcomes = await asyncio.gather(pair.deploy(), pair.delete(), return_exceptions=True)
        assert all(not isinstance(o, BaseException) or isinstance(o, DomainError) for o in outcomes), outcomes
        assert not all(isinstance(o, DomainError) for o in outcomes), "one of both has its way"
        deleted = await pair.is_deleted()
        if not isinstance(outcomes[0], DomainError):
            wanted = DeploymentState.FAILED if deleted else DeploymentState.ACTIVE
            await pair.inference.until_state(wanted)
            await pair.inference.deployments.delete(call(), NAME, "")
            await pair.inference.until_gone()
        if deleted:
            await pair.catalog.deletions.undelete(ADA, Undelete(ResourceType.MODEL_VERSION, pair.version.id))
