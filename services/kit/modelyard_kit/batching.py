"""Callers of the same moment are served together, as a round trip costs the same for one row as for fifty.

Nothing ever waits for company: a batch is whatever came while the one before it was under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

MOST = 64
"""What one batch holds at most."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[A, R]):
    asked: A
    answer: asyncio.Future[R]
    context: Context


class Batches(Generic[A, R]):
    """Turns work on many things into a function of one, which callers may call at the same time.

    What comes alone is done in its caller's own task, as if there were no batches. A batch of several runs with the context
    variables of the first. If it fails, its members are done one after the other, so that each gets its own answer or error: so a
    batch must leave nothing behind when it fails, as a transaction does.

    Args:
        work: answers what is asked, in the same order.
        most: what one batch holds at most.
    """

    def __init__(self, work: Callable[[Sequence[A]], Awaitable[Sequence[R]]], *, most: int = MOST) -> None:
        self._work = work
        self._most = most
        self._busy = False
        self._waiting: deque[_Waiting[A, R]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, asked: A) -> R:
        """Return the answer to one thing; raises what `work` does for it."""
        if self._busy:
            answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(asked, answer, copy_context()))
            return await answer
        self._busy = True
        try:
            return await self._alone(asked)
        finally:
            self._next()

    def _next(self) -> None:
        """Begin with those who came meanwhile and still want to know."""
        batch: list[_Waiting[A, R]] = []
        while self._waiting and len(batch) < self._most:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # else its caller was cancelled
                batch.append(waiting)
        self._busy = bool(batch)
        if batch:
            context = batch[0].context
            task = asyncio.get_running_loop().create_task(self._together(batch), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _together(self, batch: Sequence[_Waiting[A, R]]) -> None:
        try:
            answers = await self._work([waiting.asked for waiting in batch])
        except Exception:  # noqa: BLE001 - whose fault it was, and what is wrong, comes out one by one
            await self._one_by_one(batch)
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        finally:
            for waiting in batch:
                waiting.answer.cancel()  # nothing if it has its answer: this task was cancelled, as at the end of the process
            self._next()

    async def _one_by_one(self, batch: Sequence[_Waiting[A, R]]) -> None:
        for waiting in batch:
            if waiting.answer.done():
                continue
            try:
                answer = await self._alone(waiting.asked)
            except Exception as error:  # noqa: BLE001 - raised again where it was asked
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            else:
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    async def _alone(self, asked: A) -> R:
        [answer] = await self._work([asked])
        return answer
