"""The queue: everybody gets their own rows, whatever arrives together, fails, leaves or is late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard_inference.replica.batching import ALONE, Batcher
from modelyard_inference.replica.errors import ModelFailed, QueueFull
from modelyard_inference.replica.statistics import Statistics
from modelyard_kit.errors import DeadlineExceeded, DomainError
from tests.framework.waiting import eventually


class Model:
    """Doubles what it gets; fails on negative numbers; waits at a gate."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()

    def run(self, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.runs.append((method, len(inputs["x"])))
        self.running.set()
        assert self.gate.wait(30)
        if method == "starves":
            raise MemoryError
        if (inputs["x"] < 0).any():
            raise ArithmeticError("negative")
        if method == "shrinks" and len(inputs["x"]) > 1:
            return {"y": inputs["x"][:1] * 2}
        return {"y": inputs["x"] * 2}

    def explain(self, method: str, error: BaseException) -> DomainError:
        if isinstance(error, MemoryError):
            raise error
        assert isinstance(error, ArithmeticError | SystemExit)
        return ModelFailed(method)


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def batcher(model: Model) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as executor:
        yield Batcher(model.run, model.explain, [executor], max_queue_rows=20, max_batch_rows=8)
        model.gate.set()


async def test_an_idle_model_waits_for_company_until_a_run_is_full(model: Model) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        patient = Batcher(
            model.run,
            model.explain,
            [one, other],
            max_queue_rows=20,
            max_batch_rows=3,
            delay_seconds=3_600,
        )
        first, second = submit(patient, 1), submit(patient, 2)
        await asyncio.sleep(0)
        assert not model.runs
        full = submit(patient, 3)
        answers = await asyncio.gather(first, second, full)
        assert [float(answer["y"][0, 0]) for answer in answers] == [2, 4, 6]
        assert model.runs == [("m", 3)]
        again = [submit(patient, value) for value in (4, 5, 6)]  # by whichever copy is next
        await asyncio.gather(*again)
        assert model.runs == [("m", 3)] * 2


async def test_company_is_waited_for_no_longer_than_the_delay(model: Model) -> None:
    with ThreadPoolExecutor(1) as executor:
        patient = Batcher(
            model.run,
            model.explain,
            [executor],
            max_queue_rows=20,
            max_batch_rows=8,
            delay_seconds=0.02,
        )
        both = [submit(patient, value) for value in (1, 2)]
        await asyncio.gather(*both)
        assert model.runs == [("m", 2)]


def rows(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, dtype=np.float64).reshape(-1, 1)}


def submit(
    batcher: Batcher, *values: float, method: str = "m", key: Any = "k", deadline: float | None = None
) -> Any:
    return batcher.submit(method, rows(*values), rows=len(values), key=key, deadline=deadline)


async def busy(batcher: Batcher, model: Model) -> Any:
    """Occupy the model and return the future of the request that does."""
    model.gate.clear()
    future = submit(batcher, 0)
    assert await asyncio.to_thread(model.running.wait, 30)
    return future


async def test_nobody_waits_for_ever_when_even_explaining_fails(batcher: Batcher) -> None:
    """As without any memory left; and the queue goes on."""
    starved = [submit(batcher, 1, method="starves"), submit(batcher, 2, method="starves", key=ALONE)]
    answers = await asyncio.wait_for(asyncio.gather(*starved, return_exceptions=True), 60)
    assert [type(answer) for answer in answers] == [MemoryError, MemoryError]
    assert (await asyncio.wait_for(submit(batcher, 3), 60))["y"].tolist() == [[6]]


async def test_copies_run_at_the_same_time(model: Model) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        batcher = Batcher(model.run, model.explain, [one, two], max_queue_rows=20, max_batch_rows=8)
        model.gate.clear()
        futures = [submit(batcher, number, key=ALONE) for number in range(3)]
        await eventually(lambda: len(model.runs) == 2)
        assert not any(future.done() for future in futures)
        model.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*futures), 60)
        assert [answer["y"].item() for answer in answers] == [0, 2, 4]
        together = [submit(batcher, 1), submit(batcher, 2)]
        await asyncio.wait_for(asyncio.gather(*together), 60)
        assert model.runs[3:] == [("m", 2)]  # what arrives in one turn still shares a run


async def test_one_turn_of_the_loop_is_one_run(batcher: Batcher, model: Model) -> None:
    answers = await asyncio.gather(submit(batcher, 1), submit(batcher, 2, 3), submit(batcher, 4))
    assert [answer["y"].ravel().tolist() for answer in answers] == [[2], [4, 6], [8]]
    assert model.runs == [("m", 4)]


async def test_what_waits_shares_the_next_run(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    others = [submit(batcher, number) for number in range(5)]
    model.gate.set()
    await asyncio.gather(first, *others)
    assert model.runs == [("m", 1), ("m", 5)]


async def test_runs_are_bounded_by_rows(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    others = [submit(batcher, *range(size)) for size in (3, 3, 3, 2, 9)]
    model.gate.set()
    await asyncio.gather(first, *others)
    assert model.runs == [("m", 1), ("m", 6), ("m", 5), ("m", 9)]


async def test_keys_do_not_mix_and_keep_their_order(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    others = [submit(batcher, number, method=key, key=key) for number, key in enumerate("abab")]
    alone = [submit(batcher, number, method="alone", key=ALONE) for number in range(2)]
    model.gate.set()
    await asyncio.gather(first, *others, *alone)
    assert model.runs == [("m", 1), ("a", 2), ("b", 2), ("alone", 1), ("alone", 1)]


async def test_only_the_bad_request_fails(batcher: Batcher, model: Model) -> None:
    answers = await asyncio.gather(
        submit(batcher, 1), submit(batcher, -1), submit(batcher, 2, 3), return_exceptions=True
    )
    assert answers[0]["y"].tolist() == [[2]]
    assert isinstance(answers[1], ModelFailed)
    assert answers[2]["y"].tolist() == [[4], [6]]
    assert (await submit(batcher, 5))["y"].tolist() == [[10]]


async def test_a_model_that_loses_rows_is_run_one_by_one(batcher: Batcher, model: Model) -> None:
    answers = await asyncio.gather(*(submit(batcher, number, method="shrinks") for number in range(3)))
    assert [answer["y"].ravel().tolist() for answer in answers] == [[0], [2], [4]]


async def test_a_cancelled_caller_hurts_nobody(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    left, right, gone = submit(batcher, 1), submit(batcher, 2), submit(batcher, 3)
    gone.cancel()
    model.gate.set()
    answers = await asyncio.gather(first, left, right)
    assert [answer["y"].ravel().tolist() for answer in answers] == [[0], [2], [4]]
    assert model.runs == [("m", 1), ("m", 2)]


async def test_cancelled_while_running(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    first.cancel()
    second = submit(batcher, 7)
    model.gate.set()
    assert (await second)["y"].tolist() == [[14]]


async def test_late_requests_are_not_run(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    now = asyncio.get_running_loop().time()
    late, early = submit(batcher, 1, deadline=now - 1), submit(batcher, 2, deadline=now + 60)
    model.gate.set()
    with pytest.raises(DeadlineExceeded):
        await late
    assert (await early)["y"].tolist() == [[4]]
    await first
    assert model.runs == [("m", 1), ("m", 1)]


async def test_the_queue_is_bounded_by_rows(batcher: Batcher, model: Model) -> None:
    first = await busy(batcher, model)
    waiting = [submit(batcher, *range(10)) for _ in range(2)]
    with pytest.raises(QueueFull, match="20 rows"):
        submit(batcher, 1)
    waiting[0].cancel()
    again = submit(batcher, 1)
    model.gate.set()
    await asyncio.gather(first, waiting[1], again)


async def test_one_request_may_be_larger_than_the_queue(batcher: Batcher, model: Model) -> None:
    answer = await submit(batcher, *range(50))
    assert len(answer["y"]) == 50


async def test_a_delay_waits_for_company(model: Model) -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(
            model.run, model.explain, [executor], max_queue_rows=20, max_batch_rows=8, delay_seconds=0.05
        )
        first = submit(batcher, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, submit(batcher, 2))
    assert model.runs == [("m", 2)]


Request = st.tuples(
    st.lists(st.integers(-3, 1000), min_size=1, max_size=6),  # rows; a negative one fails
    st.sampled_from(["a", "b", "shrinks"]),
    st.booleans(),  # alone
    st.sampled_from(["stay", "stay", "stay", "leave", "late"]),
    st.integers(0, 3),  # turns of the loop before it arrives
)


@settings(max_examples=150, deadline=None)
@given(st.lists(Request, min_size=1, max_size=25), st.integers(1, 3))
def test_everybody_gets_their_own_rows(requests: list[Any], copies: int) -> None:
    asyncio.run(_everybody(requests, copies))


async def _everybody(requests: list[Any], copies: int) -> None:
    model = Model()

    async def one(values: list[int], method: str, alone: bool, fate: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() - 1 if fate == "late" else None
        future = submit(batcher, *values, method=method, key=ALONE if alone else method, deadline=deadline)
        if fate == "leave":
            await asyncio.sleep(0)
            future.cancel()
            return
        if fate == "late":
            with pytest.raises(DeadlineExceeded):
                await future
        elif min(values) < 0:
            with pytest.raises(ModelFailed):
                await future
        else:
            expected = values[:1] if method == "shrinks" else values
            assert (await future)["y"].ravel().tolist() == [2 * value for value in expected]

    with ExitStack() as stack:
        executors = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(copies)]
        batcher = Batcher(model.run, model.explain, executors, max_queue_rows=10_000, max_batch_rows=8)
        async with asyncio.timeout(60):
            await asyncio.gather(*(one(*request) for request in requests))
        assert batcher._rows == sum(work.rows for work in batcher._waiting)


async def test_rows_runs_and_their_times_are_counted(model: Model) -> None:
    statistics = Statistics()
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(
            model.run, model.explain, [executor], max_queue_rows=20, max_batch_rows=8, statistics=statistics
        )
        first = await busy(batcher, model)
        others = [submit(batcher, 1, 2), submit(batcher, 3)]
        gone = submit(batcher, 4)
        assert batcher.pending == 3
        gone.cancel()
        assert batcher.pending == 2
        model.gate.set()
        await asyncio.gather(first, *others)
        assert (statistics.inferences, statistics.executions, batcher.pending) == (4, 2, 0)
        before = (statistics.queue_ns, statistics.input_ns, statistics.infer_ns)
        assert all(value > 0 for value in before)
        # Both waited for the first run, which took until the gate opened.
        assert statistics.queue_ns > statistics.input_ns
        await asyncio.gather(submit(batcher, 1), submit(batcher, -1), return_exceptions=True)
        assert (statistics.inferences, statistics.executions) == (5, 3)
