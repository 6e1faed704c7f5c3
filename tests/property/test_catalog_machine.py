"""Any sequence of changes leaves the catalog as a plain Python model of it predicts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modelyard_catalog.commands import AliasChange, Browse, Fail, Finalize, Rollback, VersionRef
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import AliasMove, Model, VersionState
from modelyard_kit.errors import InvalidState, NotFound
from tests.conformance.catalog_stack import ADA, DIGEST, CatalogStack

T = TypeVar("T")

MODELS = (("prod", "ml", "a"), ("prod", "ml", "b"))
models = st.sampled_from(MODELS)
numbers = st.integers(1, 5)
alias_names = st.sampled_from(("champion", "challenger", "old"))
changes = st.lists(
    st.builds(
        AliasChange,
        alias_names,
        st.integers(0, 5),
        st.none() | st.integers(0, 5),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda change: change.alias,
)


@dataclass
class Expected:
    """What one model should look like: states by number, aliases, their history."""

    states: list[VersionState] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    history: list[AliasMove] = field(default_factory=list)

    def ready(self) -> list[int]:
        return [number for number, state in enumerate(self.states, 1) if state is VersionState.READY]

    def move(self, asked: list[AliasChange]) -> type[Exception] | None:
        """Move aliases, or return how that is refused."""
        for change in asked:
            if change.version > len(self.states):
                return NotFound
            if change.version and change.version not in self.ready():
                return InvalidState
        if any(change.expected not in (None, self.aliases.get(change.alias, 0)) for change in asked):
            return AliasMoved
        for change in asked:
            before = self.aliases.pop(change.alias, 0)
            if change.version:
                self.aliases[change.alias] = change.version
            if before != change.version:
                self.history.append(AliasMove(change.alias, before, change.version))
        return None

    def roll_back(self, alias: str, expected: int | None) -> type[Exception] | None:
        """Undo the last move of an alias, or return how that is refused."""
        last = next((move for move in reversed(self.history) if move.alias == alias), None)
        if last is None:
            return NotFound
        if expected not in (None, last.after):
            return AliasMoved
        if not last.before:
            return InvalidState
        return self.move([AliasChange(alias, last.before)])

    def transition(self, number: int, target: VersionState) -> type[Exception] | None:
        """Change a state, or return how that is refused."""
        if number > len(self.states):
            return NotFound
        if self.states[number - 1] not in (VersionState.PENDING, target):
            return InvalidState
        self.states[number - 1] = target
        return None


def folded(history: list[AliasMove]) -> dict[str, int]:
    """Return where the aliases point after moves, each of which must begin where the one before ended."""
    state: dict[str, int] = {}
    for move in history:
        assert state.pop(move.alias, 0) == move.before
        if move.after:
            state[move.alias] = move.after
    return state


class CatalogMachine(RuleBasedStateMachine):
    """Changes the catalog and the prediction alike."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = CatalogStack(dsn)
        self.expected = {path: Expected() for path in MODELS}

    @initialize()
    def make_models(self) -> None:
        for path in MODELS:
            self.run(self.stack.create_model(*path))

    @rule(path=models, ready=st.booleans())
    @precondition(lambda self: all(len(expected.states) < 5 for expected in self.expected.values()))
    def create_version(self, path: tuple[str, str, str], ready: bool) -> None:
        made = self.run(self.stack.create_version(path, digest=DIGEST if ready else ""))
        states = self.expected[path].states
        states.append(VersionState.READY if ready else VersionState.PENDING)
        assert (made.number, made.state) == (len(states), states[-1])

    @rule(path=models, number=numbers)
    def finalize(self, path: tuple[str, str, str], number: int) -> None:
        refusal = self.expected[path].transition(number, VersionState.READY)
        self.attempt(self.stack.versions.finalize(ADA, Finalize(VersionRef(path, number), DIGEST)), refusal)

    @rule(path=models, number=numbers)
    def fail(self, path: tuple[str, str, str], number: int) -> None:
        refusal = self.expected[path].transition(number, VersionState.FAILED)
        self.attempt(self.stack.versions.fail(ADA, Fail(VersionRef(path, number), "why")), refusal)

    @rule(path=models, asked=changes)
    def set_aliases(self, path: tuple[str, str, str], asked: list[AliasChange]) -> None:
        refusal = self.expected[path].move(asked)
        self.attempt(self.stack.set_aliases(*asked, model=path), refusal)

    @rule(path=models, alias=alias_names, expected=st.none() | st.integers(0, 5))
    def roll_back(self, path: tuple[str, str, str], alias: str, expected: int | None) -> None:
        refusal = self.expected[path].roll_back(alias, expected)
        self.attempt(self.stack.aliases.rollback(ADA, Rollback(path, alias, expected)), refusal)

    @invariant()
    def catalog_is_as_predicted(self) -> None:
        for path, expected in self.expected.items():
            self.run(self.compare(path, expected))

    async def compare(self, path: tuple[str, str, str], expected: Expected) -> None:
        model = await self.stack.namespaces.get(Model, path)
        assert (model.latest_version, model.aliases) == (len(expected.states), expected.aliases)
        history = await self.stack.history(model)
        assert history == expected.history
        assert folded(history) == model.aliases
        versions, _ = await self.stack.versions.page(path, Browse(size=10))
        assert [version.state for version in reversed(versions)] == expected.states
        for version in versions:
            pointing = sorted(alias for alias, number in expected.aliases.items() if number == version.number)
            assert list(version.aliases) == pointing
        for alias, position in (("first", 0), ("last", -1), ("default", -1)):
            reference = f"{model.name}@{alias}"
            if expected.ready():
                assert (await self.stack.get(reference)).number == expected.ready()[position]
            else:
                with pytest.raises(NotFound):
                    await self.stack.get(reference)

    def attempt(self, work: Coroutine[Any, Any, object], refusal: type[Exception] | None) -> None:
        if refusal is None:
            self.run(work)
        else:
            with pytest.raises(refusal):
                self.run(work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.stack.close())
        self.runner.close()


def test_catalog_follows_its_model(fresh_database: Callable[[str], str]) -> None:
    run_state_machine_as_test(
        lambda: CatalogMachine(fresh_database("modelyard_catalog")),
        settings=settings(
            max_examples=8,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
