"""The past of aliases on real PostgreSQL: history, points in time, rollback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from modelyard_catalog.commands import AliasAt, AliasChange, AliasHistory, Rollback
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import AliasMove, Model, RecordedMove
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import Contention, InvalidField, InvalidState, NotFound, PolicyUnmet
from modelyard_kit.filters import Asked
from tests.conformance.catalog_stack import ADA, BOB, IRIS, CatalogStack


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def iris(stack: CatalogStack) -> Model:
    """A model with three READY versions."""
    model = await stack.create_model(*IRIS)
    for _ in range(3):
        await stack.create_version()
    return model


async def move(stack: CatalogStack, alias: str, *numbers: int) -> None:
    for number in numbers:
        await stack.set_aliases(AliasChange(alias, number))


async def roll_back(stack: CatalogStack, alias: str = "champion", expected: int | None = None) -> Model:
    return await stack.aliases.rollback(ADA, Rollback(IRIS, alias, expected))


async def moves(stack: CatalogStack, alias: str = "", *, asked: str = "") -> list[RecordedMove]:
    found, token = await stack.aliases.history(ADA, AliasHistory(IRIS, alias, Asked(size=50, filter=asked)))
    assert not token
    return found


async def at(stack: CatalogStack, alias: str, time: datetime) -> int:
    return await stack.aliases.at(ADA, AliasAt(IRIS, alias, time))


def folded(history: list[AliasMove]) -> dict[str, int]:
    """Where the aliases point after all moves, each of which must begin where the one before ended."""
    state: dict[str, int] = {}
    for step in history:
        assert state.pop(step.alias, 0) == step.before
        if step.after:
            state[step.alias] = step.after
    return state


# History.


async def test_history_tells_every_move_newest_first(stack: CatalogStack, iris: Model) -> None:
    before = utc_now()
    await move(stack, "champion", 1, 2)
    await stack.set_aliases(AliasChange("challenger", 3), by=BOB)
    await move(stack, "champion", 0)
    history = await moves(stack)
    assert [(item.alias, item.before, item.after, item.actor_name) for item in history] == [
        ("champion", 2, 0, "ada"),
        ("challenger", 0, 3, "bob"),
        ("champion", 1, 2, "ada"),
        ("champion", 0, 1, "ada"),
    ]
    assert all(before <= item.time <= utc_now() for item in history)
    assert [item.after for item in await moves(stack, "champion")] == [0, 2, 1]
    assert await moves(stack, "nobody") == []


async def test_history_pages_to_the_end(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2, 3, 1, 2)
    whole = await moves(stack)
    found, token = await stack.aliases.history(ADA, AliasHistory(IRIS, "", Asked(size=2)))
    await move(stack, "champion", 3)  # a row that comes meanwhile is not on later pages
    while token:
        page = Asked(size=2, page_token=token)
        with pytest.raises(InvalidField, match="page_token"):
            await stack.aliases.history(ADA, AliasHistory(IRIS, "champion", page))
        rows, token = await stack.aliases.history(ADA, AliasHistory(IRIS, "", page))
        found += rows
    assert found == whole


async def test_history_is_found_by_every_field(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2)
    await stack.set_aliases(AliasChange("challenger", 3), by=BOB)
    newest = (await moves(stack))[0]
    asked = {
        "moved_by = 'bob'": [3],
        "alias LIKE 'champ%' AND previous_version > 0": [2],
        "version IN (1, 3)": [3, 1],
        f"move_time >= '{newest.time.isoformat()}'": [3],
        f"sequence < {newest.sequence}": [2, 1],
    }
    for text, expected in asked.items():
        assert [item.after for item in await moves(stack, asked=text)] == expected, text
    with pytest.raises(InvalidField, match="column 1: unknown field 'by'"):
        await moves(stack, asked="by = 'bob'")


async def test_history_is_of_one_model_and_outlives_its_name(stack: CatalogStack, iris: Model) -> None:
    await stack.create_model("prod", "ml", "other")
    await move(stack, "champion", 1)
    other = AliasHistory(("prod", "ml", "other"), "", Asked(size=50))
    assert await stack.aliases.history(ADA, other) == ([], "")
    with pytest.raises(NotFound):
        await stack.aliases.history(ADA, AliasHistory(("prod", "ml", "nothing"), "", Asked(size=50)))


# Points in time.


async def test_alias_is_known_at_every_time(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2, 0, 3)
    first, second, removed, third = reversed(await moves(stack))
    instant = timedelta(microseconds=1)
    assert await at(stack, "champion", first.time - instant) == 0
    assert await at(stack, "champion", first.time) == 1
    assert await at(stack, "champion", second.time - instant) == 1
    assert await at(stack, "champion", second.time) == 2
    assert await at(stack, "champion", removed.time) == 0
    assert await at(stack, "champion", third.time) == 3
    assert await at(stack, "champion", utc_now()) == 3
    assert await at(stack, "challenger", utc_now()) == 0
    assert await at(stack, "champion", datetime(1, 1, 1, tzinfo=UTC)) == 0
    assert await at(stack, "champion", datetime(9999, 12, 31, tzinfo=UTC)) == 3


async def test_nothing_is_known_of_a_model_that_does_not_exist(stack: CatalogStack) -> None:
    with pytest.raises(NotFound):
        await at(stack, "champion", utc_now())
    with pytest.raises(NotFound):
        await roll_back(stack)


# Rollback.


async def test_rollback_points_where_the_alias_pointed_before(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2)
    stack.gates.asked.clear()
    model = await roll_back(stack, expected=2)
    assert model.aliases == {"champion": 1}
    assert stack.gates.asked == [(1, ("champion",))]
    last = (await moves(stack))[0]
    assert (last.before, last.after) == (2, 1)
    assert (await stack.events())[-1][0] == "catalog.alias.moved"


async def test_rollback_of_a_rollback_is_where_one_began(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2, 3)
    assert (await roll_back(stack)).aliases == {"champion": 2}
    assert (await roll_back(stack)).aliases == {"champion": 3}
    assert folded(await stack.history(iris)) == {"champion": 3}


async def test_rollback_brings_a_removed_alias_back(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 2, 0)
    assert (await roll_back(stack, expected=0)).aliases == {"champion": 2}


async def test_rollback_of_an_alias_that_never_pointed_elsewhere_is_refused(
    stack: CatalogStack, iris: Model
) -> None:
    with pytest.raises(NotFound) as missing:
        await roll_back(stack)
    assert missing.value.metadata == {"resource_type": "alias", "name": "prod.ml.iris@champion"}
    await move(stack, "champion", 1)
    with pytest.raises(InvalidState, match="where it was set first"):
        await roll_back(stack)
    assert (await stack.history(iris)) == [AliasMove("champion", 0, 1)]


async def test_rollback_is_compared_and_gated_like_any_move(stack: CatalogStack, iris: Model) -> None:
    await move(stack, "champion", 1, 2)
    with pytest.raises(AliasMoved) as moved:
        await roll_back(stack, expected=3)
    assert moved.value.metadata == {
        "name": "prod.ml.iris",
        "alias": "champion",
        "expected": "3",
        "actual": "2",
    }
    stack.gates.closed.add(1)
    with pytest.raises(PolicyUnmet):
        await roll_back(stack)
    assert folded(await stack.history(iris)) == {"champion": 2}


class MovesMeanwhile:
    """A gate that opens, but during which somebody else moves the alias."""

    def __init__(self, stack: CatalogStack, *numbers: int) -> None:
        self._stack = stack
        self._numbers = list(numbers)

    async def require_alias_move(self, version: object, aliases: object) -> None:
        numbers, self._numbers = self._numbers, []
        await move(self._stack, "champion", *numbers)


async def test_rollback_is_refused_when_the_alias_was_moved_during_the_gate(
    stack: CatalogStack, iris: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(stack, "champion", 1, 2)
    monkeypatch.setattr(stack.aliases, "_gates", MovesMeanwhile(stack, 3))
    with pytest.raises(AliasMoved):
        await roll_back(stack)
    # Away and back: it points where it did, but what was before is something else now.
    monkeypatch.setattr(stack.aliases, "_gates", MovesMeanwhile(stack, 1, 3))
    with pytest.raises(Contention):
        await roll_back(stack)
    assert (await roll_back(stack)).aliases == {"champion": 1}


async def test_concurrent_rollbacks_roll_back_once_each_time_they_answer(
    stack: CatalogStack, iris: Model
) -> None:
    await move(stack, "champion", 1, 2)

    async def attempt() -> bool:
        try:
            await roll_back(stack, expected=2)
        except (AliasMoved, Contention):
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(6)))) == 1
    assert folded(await stack.history(iris)) == {"champion": 1}


async def test_history_folds_to_the_aliases_whoever_moves_and_rolls_back(
    stack: CatalogStack, iris: Model
) -> None:
    await stack.set_aliases(AliasChange("a", 1), AliasChange("b", 1))

    async def write(turn: int) -> None:
        alias = "ab"[turn % 2]
        try:
            if turn % 3:
                await move(stack, alias, turn % 4)
            else:
                await roll_back(stack, alias)
        except (AliasMoved, Contention, InvalidState):
            pass

    await asyncio.gather(*(write(turn) for turn in range(12)))
    now = await stack.namespaces.get(Model, IRIS)
    assert folded(await stack.history(iris)) == now.aliases
    assert {alias: await at(stack, alias, utc_now()) for alias in now.aliases} == now.aliases
