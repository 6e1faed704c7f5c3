"""One queue in front of the copies of a model: requests that waited while all of them ran share the next run.

A model's call costs about the same for one row as for many, so by default nothing waits on purpose: an idle model runs
at once what has arrived, a busy one finds company for the next run in its queue. With a delay an idle one waits that long, or until a
run is full. Rows are counted, not requests. Requests
share a run only if their keys are equal; their answers are cut from the outputs by row ranges. Each copy runs in its own
thread; this class lives on the event loop and needs no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

import numpy as np

from modelyard_inference.replica.errors import QueueFull
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.serving import NO_CALL, serving
from modelyard_inference.replica.statistics import Statistics
from modelyard_inference.runtimes.datatypes import Array
from modelyard_kit.errors import DeadlineExceeded, DomainError

Outputs = Mapping[str, Array]
Run = Callable[[str, Mapping[str, Array]], Outputs]
"""Runs a method and returns checked outputs; called in the model's thread."""
Explain = Callable[[str, BaseException], DomainError]
"""Turns what a run raised into what the caller is told; called in the model's thread."""

ALONE: Final = None
"""Key of a request that shares no run."""


@dataclass(slots=True, eq=False)
class Work:
    """One request in the queue."""

    method: str
    inputs: Mapping[str, Array]
    rows: int
    key: Hashable
    deadline: float | None
    """Time of the event loop after which nobody wants the answer."""
    future: asyncio.Future[Outputs]
    call: Call
    """Who asks, for the log."""
    submitted: int
    """When it was, and below when its run began, when its rows were together, and when it ended: of `perf_counter_ns`."""
    begun: int = 0
    merged: int = 0
    ended: int = 0


class Batcher:
    """The queue of one model, with a thread for each of its copies."""

    def __init__(
        self,
        run: Run,
        explain: Explain,
        executors: Sequence[Executor],
        *,
        max_queue_rows: int,
        max_batch_rows: int,
        delay_seconds: float = 0.0,
        statistics: Statistics | None = None,
    ) -> None:
        self._run = run
        self._explain = explain
        self._idle = list(executors)
        self._max_queue_rows = max_queue_rows
        self._max_batch_rows = max_batch_rows
        self._delay = delay_seconds
        self._statistics = statistics or Statistics()
        self._waiting: deque[Work] = deque()
        self._gathering: deque[tuple[Executor, asyncio.TimerHandle]] = deque()
        self._rows = 0
        self._loop = asyncio.get_running_loop()

    def submit(
        self,
        method: str,
        inputs: Mapping[str, Array],
        *,
        rows: int,
        key: Hashable,
        deadline: float | None = None,
        call: Call = NO_CALL,
    ) -> asyncio.Future[Outputs]:
        """Queue a request. Cancelling the future is enough to take it back.

        Raises:
            QueueFull: if the rows waiting would be more than allowed. A request larger than that by itself is accepted
                by an empty queue; refusing it would never end.
        """
        if self._rows and self._rows + rows > self._max_queue_rows:
            self._discard()
            if self._rows and self._rows + rows > self._max_queue_rows:
                raise QueueFull(self._max_queue_rows)
        work = Work(method, inputs, rows, key, deadline, self._loop.create_future(), call, perf_counter_ns())
        self._waiting.append(work)
        self._rows += rows
        if self._idle:
            executor = self._idle.pop()
            if self._delay:
                timer = self._loop.call_later(self._delay, self._gathered)
                self._gathering.append((executor, timer))
            else:
                # Not at once: what arrives in this turn of the loop comes along.
                self._loop.call_soon(self._next, executor)
        if self._gathering and self._rows >= self._max_batch_rows:
            executor, timer = self._gathering.popleft()
            timer.cancel()
            self._loop.call_soon(self._next, executor)
        return work.future

    @property
    def pending(self) -> int:
        """Return how many requests wait."""
        return sum(not work.future.done() for work in self._waiting)

    def _gathered(self) -> None:
        executor, _ = (
            self._gathering.popleft()
        )  # all wait equally long: the first that began is the first that ends
        self._next(executor)

    def _next(self, executor: Executor) -> None:
        self._discard()
        batch = self._take()
        if not batch:
            self._idle.append(executor)
            return
        running = self._loop.run_in_executor(executor, self._execute, batch)
        running.add_done_callback(lambda done: self._finish(executor, batch, done))

    def _discard(self) -> None:
        """Forget what nobody waits for any more."""
        now = self._loop.time()
        for work in self._waiting:
            if not work.future.done() and work.deadline is not None and work.deadline <= now:
                work.future.set_exception(DeadlineExceeded())
        self._waiting = deque(work for work in self._waiting if not work.future.done())
        self._rows = sum(work.rows for work in self._waiting)

    def _take(self) -> list[Work]:
        """Take the oldest request and those behind it that may share its run; the others keep their order."""
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        key, rows = batch[0].key, batch[0].rows
        if key is not ALONE:
            others: deque[Work] = deque()
            while self._waiting and rows < self._max_batch_rows:
                work = self._waiting.popleft()
                if work.key != key:
                    others.append(work)
                elif rows + work.rows > self._max_batch_rows:
                    others.append(work)
                    break
                else:
                    batch.append(work)
                    rows += work.rows
            others.extend(self._waiting)
            self._waiting = others
        self._rows -= rows
        return batch

    def _execute(self, batch: Sequence[Work]) -> tuple[list[Outputs | DomainError], int]:
        """Run a batch in the model's thread; if it fails, run its requests one by one, so that only the bad one does.

        Returns:
            The answers, and how many runs gave some.
        """
        if len(batch) > 1:
            try:
                return list(self._together(batch)), 1
            except Exception:  # noqa: BLE001, S110  whatever it is, each request finds out for itself and is told
                pass
        answers = [self._alone(work) for work in batch]
        return answers, sum(not isinstance(answer, DomainError) for answer in answers)

    def _together(self, batch: Sequence[Work]) -> list[Outputs]:
        first, begun = batch[0], perf_counter_ns()
        merged = {name: np.concatenate([work.inputs[name] for work in batch]) for name in first.inputs}
        together = perf_counter_ns()
        with serving([work.call for work in batch]):
            outputs = self._run(first.method, merged)
        ended = perf_counter_ns()
        total = sum(work.rows for work in batch)
        if any(array.shape[0] != total for array in outputs.values()):
            raise ValueError("the model gives another number of rows than it was given")
        answers: list[Outputs] = []
        start = 0
        for work in batch:
            end = start + work.rows
            work.begun, work.merged, work.ended = begun, together, ended
            answers.append({name: array[start:end] for name, array in outputs.items()})
            start = end
        return answers

    def _alone(self, work: Work) -> Outputs | DomainError:
        if work.future.done():
            return DeadlineExceeded()
        work.begun = work.merged = perf_counter_ns()
        with serving([work.call]):
            try:
                outputs = self._run(work.method, work.inputs)
            except BaseException as error:  # noqa: BLE001  a model that raises SystemExit ends its request, not the replica
                return self._explain(work.method, error)
        work.ended = perf_counter_ns()
        return outputs

    def _finish(
        self,
        executor: Executor,
        batch: Sequence[Work],
        done: asyncio.Future[tuple[list[Outputs | DomainError], int]],
    ) -> None:
        if done.cancelled():
            for work in batch:
                work.future.cancel()
        elif (
            error := done.exception()
        ):  # explaining failed too, as without any memory: nobody may wait for ever
            for work in batch:
                if not work.future.done():
                    work.future.set_exception(error)
        else:
            answers, runs = done.result()
            self._statistics.executions += runs
            for work, answer in zip(batch, answers, strict=True):
                if work.future.done():
                    continue
                if isinstance(answer, DomainError):
                    work.future.set_exception(answer)
                else:
                    self._count(work)
                    work.future.set_result(answer)
        if self._waiting:
            self._loop.call_soon(self._next, executor)
        else:
            self._idle.append(executor)

    def _count(self, work: Work) -> None:
        self._statistics.computed(
            work.rows,
            queue_ns=work.begun - work.submitted,
            merge_ns=work.merged - work.begun,
            infer_ns=work.ended - work.merged,
        )
