"""Any sequence of creations, renames, moves, copies, deletions, their undoing and purges leaves the catalog as a plain model of it predicts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import (
    AliasChange,
    CopyVersion,
    Delete,
    Once,
    Undelete,
    Update,
    UpdateVersion,
    VersionRef,
)
from modelyard_catalog.models import Model, ModelVersion, Schema
from modelyard_catalog.tables import model_versions
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant, ResourceType
from modelyard_kit.errors import (
    AlreadyExists,
    DomainError,
    InvalidField,
    InvalidState,
    NotFound,
    ResourceInUse,
)
from modelyard_kit.grants import Grants
from tests.conformance.catalog_stack import ADA, CatalogStack

T = TypeVar("T")
Name = tuple[str, str, str]

names = st.sampled_from([("prod", schema, model) for schema in ("ml", "web") for model in ("a", "b")])
numbers = st.integers(1, 4)
words = st.sampled_from(("champion", "old", "one"))
positions = st.integers(0, 3)


@dataclass
class Version:
    """What is expected of a version; `lost` are the aliases that its deletion removed."""

    label: str = ""
    live: bool = True
    purged: bool = False
    lost: list[str] = field(default_factory=list)


@dataclass
class Entity:
    """What is expected of a model, whatever it is called at the moment."""

    id: str
    name: Name
    live: bool = True
    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)

    def version(self, number: int) -> Version | None:
        """Return a version that is not deleted."""
        found = self.versions[number - 1] if number <= len(self.versions) else None
        return found if found is not None and found.live else None

    def means(self, word: str) -> int:
        """Return the version that an alias or a label means; 0 if none."""
        labelled = [n for n, version in enumerate(self.versions, 1) if version.live and version.label == word]
        return self.aliases.get(word, labelled[0] if labelled else 0)


class LifecycleMachine(RuleBasedStateMachine):
    """Changes the catalog and the prediction alike."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = CatalogStack(dsn)
        self.entities: list[Entity] = []

    @initialize()
    def prepare(self) -> None:
        grants = Grants(bound=3_600)
        owner = ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)
        grants.replace(ADA.principal.id, "ada", [owner])
        self.run(grants.mark_fresh(1))
        self.updates = self.stack.updates(grants)
        self.copies = self.stack.copies(grants)
        self.run(self.stack.create_model("prod", "ml", "start"))
        self.run(self.stack.create(Schema, "prod", "web"))

    def live(self, name: Name) -> Entity | None:
        return next((entity for entity in self.entities if entity.live and entity.name == name), None)

    @rule(name=names)
    def create(self, name: Name) -> None:
        made = self.attempt(self.stack.create(Model, *name), AlreadyExists if self.live(name) else None)
        if made is not None:
            self.entities.append(Entity(made.id, name))

    @rule(name=names, to=names)
    def rename(self, name: Name, to: Name) -> None:
        entity, other = self.live(name), self.live(to)
        refusal = NotFound if entity is None else AlreadyExists if other not in (None, entity) else None
        command = Update(path=name, etag="", new_path=to, description=None, owner_id=None)
        if self.attempt(self.updates.update(ADA, Model, command), refusal) and entity:
            entity.name = to

    @rule(name=names, force=st.booleans())
    def delete(self, name: Name, force: bool) -> None:
        entity = self.live(name)
        holds = entity is not None and any(version.live for version in entity.versions)
        refusal = NotFound if entity is None else ResourceInUse if holds and not force else None
        if self.attempt(self.stack.deletions.delete(ADA, Model, Delete(name, "", force)), refusal) and entity:
            entity.live = False

    @rule(position=positions)
    def undelete(self, position: int) -> None:
        if position >= len(self.entities):
            return
        entity = self.entities[position]
        refusal = InvalidState if entity.live else AlreadyExists if self.live(entity.name) else None
        command = Undelete(ResourceType.MODEL, entity.id)
        if self.attempt(self.stack.deletions.undelete(ADA, command), refusal):
            entity.live = True

    @rule(name=names, label=st.just("") | words)
    def create_version(self, name: Name, label: str) -> None:
        entity = self.live(name)
        if entity is None or len(entity.versions) == 4:
            return
        refusal = _label_refusal(entity, label)
        made = self.attempt(self.stack.create_version(name, label=label), refusal)
        if made is not None:
            entity.versions.append(Version(label))
            assert made.number == len(entity.versions)

    @rule(name=names, number=numbers, label=st.just("") | words)
    def label(self, name: Name, number: int, label: str) -> None:
        entity = self.live(name)
        version = entity.version(number) if entity else None
        refusal: type[DomainError] | None = NotFound
        if entity is not None and version is not None:
            refusal = None if label == version.label else _label_refusal(entity, label)
        command = UpdateVersion(VersionRef(name, number), "", {"label": label})
        if self.attempt(self.updates.update_version(ADA, command), refusal) and version:
            version.label = label

    @rule(name=names, alias=words, number=st.integers(0, 4))
    def point(self, name: Name, alias: str, number: int) -> None:
        entity = self.live(name)
        refusal: type[DomainError] | None = None
        if entity is None or (number and entity.version(number) is None):
            refusal = NotFound
        elif number and any(version.live and version.label == alias for version in entity.versions):
            refusal = InvalidField
        changed = self.attempt(self.stack.set_aliases(AliasChange(alias, number), model=name), refusal)
        if changed is not None and entity is not None:
            entity.aliases.pop(alias, None)
            entity.aliases |= {alias: number} if number else {}

    @rule(name=names, number=numbers, force=st.booleans())
    def delete_version(self, name: Name, number: int, force: bool) -> None:
        entity = self.live(name)
        version = entity.version(number) if entity else None
        pointing = sorted(alias for alias, at in entity.aliases.items() if at == number) if entity else []
        refusal = NotFound if version is None else ResourceInUse if pointing and not force else None
        command = Delete(VersionRef(name, number), "", force)
        if self.attempt(self.stack.deletions.delete(ADA, ModelVersion, command), refusal):
            assert entity is not None
            assert version is not None
            version.live, version.lost = False, pointing
            entity.aliases = {alias: at for alias, at in entity.aliases.items() if at != number}

    @rule(name=names, number=numbers)
    def undelete_version(self, name: Name, number: int) -> None:
        entity = self.live(name)
        if entity is None or number > len(entity.versions) or entity.versions[number - 1].purged:
            return
        version = entity.versions[number - 1]
        taken = bool(version.label) and bool(entity.means(version.label))
        refusal = InvalidState if version.live else AlreadyExists if taken else None
        command = Undelete(ResourceType.MODEL_VERSION, self.run(self.id_of(entity, number)))
        if self.attempt(self.stack.deletions.undelete(ADA, command), refusal):
            version.live = True
            entity.aliases |= {alias: number for alias in version.lost if not entity.means(alias)}

    @rule(name=names, number=numbers, to=names, label=st.just("") | words)
    def copy(self, name: Name, number: int, to: Name, label: str) -> None:
        source, target = self.live(name), self.live(to)
        if target is not None and len(target.versions) == 4:
            return
        refusal: type[DomainError] | None = NotFound
        if source is not None and source.version(number) is not None and target is not None:
            refusal = _label_refusal(target, label)
        command = CopyVersion(VersionRef(name, number), to, label, Once("", ""))
        made = self.attempt(self.copies.copy(ADA, command), refusal)
        if made is not None and target is not None:
            target.versions.append(Version(label))
            assert (made.number, made.copied_from) == (len(target.versions), f"{'.'.join(name)}/{number}")

    @rule()
    def purge_too_early(self) -> None:
        """Nothing that can come back is purged, and purging nothing changes nothing."""
        self.stack.shift = timedelta(days=29)
        assert self.run(self.stack.purge.sweep()) == 0
        self.stack.shift = timedelta()

    @rule()
    def purge(self) -> None:
        """Everything that was deleted goes for good; numbers stay given."""
        gone = [entity for entity in self.entities if not entity.live]
        versions = [version for entity in self.entities for version in entity.versions]
        deleted = [version for version in versions if not version.live and not version.purged]
        self.stack.shift = timedelta(days=31)
        assert self.run(self.stack.purge.sweep()) == len(gone) + len(deleted)
        self.stack.shift = timedelta()
        for version in deleted:
            version.purged = True
        for entity in gone:
            self.entities.remove(entity)
            command = Undelete(ResourceType.MODEL, entity.id)
            self.attempt(self.stack.deletions.undelete(ADA, command), NotFound)

    @invariant()
    def catalog_is_as_predicted(self) -> None:
        for schema in ("ml", "web"):
            for model in ("a", "b"):
                self.run(self.compare(("prod", schema, model)))

    async def compare(self, name: Name) -> None:
        entity, text = self.live(name), ".".join(name)
        if entity is None:
            with pytest.raises(NotFound):
                await self.stack.namespaces.get(Model, name)
            return
        found = await self.stack.namespaces.get(Model, name)
        assert (found.id, found.name, found.aliases) == (entity.id, text, entity.aliases)
        assert found.latest_version == len(entity.versions)
        for number in range(1, len(entity.versions) + 1):
            await self.expect(f"{text}/{number}", number if entity.version(number) else 0)
        for word in ("champion", "old", "one"):
            await self.expect(f"{text}@{word}", entity.means(word))

    async def expect(self, reference: str, number: int) -> None:
        if number:
            assert (await self.stack.get(reference)).number == number
        else:
            with pytest.raises(NotFound):
                await self.stack.get(reference)

    async def id_of(self, entity: Entity, number: int) -> str:
        async def work(connection: AsyncConnection) -> str:
            query = select(model_versions.c.id).where(
                model_versions.c.model_id == entity.id, model_versions.c.number == number
            )
            return str((await connection.execute(query)).scalar_one())

        return await self.stack.db.read(work)

    def attempt(self, work: Coroutine[Any, Any, T], refusal: type[Exception] | None) -> T | None:
        if refusal is None:
            return self.run(work)
        with pytest.raises(refusal):
            self.run(work)
        return None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.stack.close())
        self.runner.close()


def _label_refusal(entity: Entity, label: str) -> type[DomainError] | None:
    if not label:
        return None
    return InvalidField if label in entity.aliases else AlreadyExists if entity.means(label) else None


def test_life_cycle_follows_its_model(fresh_database: Callable[[str], str]) -> None:
    run_state_machine_as_test(
        lambda: LifecycleMachine(fresh_database("modelyard_catalog")),
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
