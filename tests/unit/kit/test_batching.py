"""Batches: what comes at the same time is done together, and nobody pays for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from modelyard_kit.batching import Batches

NAME: ContextVar[str] = ContextVar("name", default="")


class Work:
    """Doubles numbers; each batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.names: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(numbers))
        self.names.append(NAME.get())
        await self.gate.wait()
        await asyncio.sleep(0)
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


async def held(work: Work, batches: Batches[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    """Ask for each while the first is held up."""
    work.gate.clear()
    tasks = []
    for number in numbers:
        NAME.set(str(number))
        tasks.append(asyncio.create_task(batches.do(number)))
        await asyncio.sleep(0)
    return tasks


async def test_one_is_done_at_once() -> None:
    work = Work()
    assert await Batches(work).do(4) == 8
    assert work.batches == [[4]]


async def test_those_who_come_meanwhile_are_done_together() -> None:
    work = Work()
    batches = Batches(work, most=2)
    tasks = await held(work, batches, 1, 2, 3, 4)
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3], [4]]
    assert work.names == ["1", "2", "4"]
    assert await batches.do(5) == 10


async def test_a_mistake_of_one_is_told_to_it_alone() -> None:
    work = Work()
    batches = Batches(work)
    tasks = await held(work, batches, 1, 2, 13, 3)
    work.gate.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [2, 4, tasks[2].exception(), 6]
    with pytest.raises(ValueError, match="13"):
        await tasks[2]
    assert work.batches == [[1], [2, 13, 3], [2], [13], [3]]
    with pytest.raises(ValueError, match="13"):
        await batches.do(13)
    assert await batches.do(5) == 10


async def test_who_is_gone_is_not_served() -> None:
    work = Work()
    batches = Batches(work)
    tasks = await held(work, batches, 1, 2, 3)
    tasks[1].cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert [await tasks[0], await tasks[2]] == [2, 6]
    assert work.batches == [[1], [3]]


async def test_the_first_may_go_without_harm_to_the_rest() -> None:
    work = Work()
    batches = Batches(work)
    tasks = await held(work, batches, 1, 2, 3)
    tasks[0].cancel()
    work.gate.set()
    assert await asyncio.gather(*tasks[1:]) == [4, 6]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_who_goes_from_a_batch_under_way_harms_nobody() -> None:
    work = Work()
    batches = Batches(work)
    tasks = await held(work, batches, 1, 2, 3)
    work.gate.set()
    await tasks[0]
    work.gate.clear()
    while len(work.batches) < 2:
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await tasks[2] == 6
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert await batches.do(5) == 10
