"""A deployed model for stories about predictions.

By default one in ONNX: a replica of it takes a second of processor time to start, and one of scikit-learn five.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelyard.aio import AsyncClient
from modelyard.types import Prediction
from tests.framework.stack import Stack

Array = np.ndarray[Any, Any]


def _irises() -> tuple[Array, Array]:
    """Return the rows and labels of scikit-learn's irises, without importing it, which takes three seconds."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/iris.csv", delimiter=",", skiprows=1)
    return np.ascontiguousarray(table[:, :4]), table[:, 4].astype(np.int64)


ROWS, LABELS = _irises()


class Nearest:
    """A classifier: the kind whose mean is nearest."""

    def __init__(self, kinds: int) -> None:
        means = np.array([ROWS[kind == LABELS].mean(axis=0) for kind in range(kinds)])
        self.weights, self.bias = means.T, -(means**2).sum(axis=1) / 2

    def predict(self, rows: Array) -> Array:
        """Return the kind of every row."""
        answer: Array = (rows @ self.weights + self.bias).argmax(axis=1)
        return answer

    def in_onnx(self, name: str) -> onnx.ModelProto:
        """Return the same in ONNX; its name is in it, so that no two stories share an artifact, and what is signed of it."""
        helper, kind = onnx.helper, onnx.TensorProto
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["input", "weights"], ["product"]),
                helper.make_node("Add", ["product", "bias"], ["scores"]),
                helper.make_node("ArgMax", ["scores"], ["output"], axis=1, keepdims=0),
            ],
            name,
            [helper.make_tensor_value_info("input", kind.DOUBLE, [None, 4])],
            [helper.make_tensor_value_info("output", kind.INT64, [None])],
            [
                onnx.numpy_helper.from_array(self.weights, "weights"),
                onnx.numpy_helper.from_array(self.bias, "bias"),
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


Models = tuple[Any, Any]
IN_ONNX: Models = (Nearest(kinds=3), Nearest(kinds=2))
"""The second never answers with the third kind."""


def estimators() -> Models:
    """Return two of scikit-learn that differ in the same way."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    return (
        LogisticRegression(max_iter=500).fit(ROWS, LABELS),
        DecisionTreeClassifier(max_depth=1).fit(ROWS, LABELS),
    )


@dataclass(frozen=True)
class Deployed:
    """A deployment of the alias `champion`, with two versions that give different answers."""

    name: str
    models: Models

    def expected(self, version: int, rows: Array) -> list[int]:
        """Return what a version answers."""
        return [int(label) for label in self.models[version - 1].predict(rows)]


@asynccontextmanager
async def deployed(stack: Stack, *, replicas: int = 1, models: Models = IN_ONNX) -> AsyncIterator[Deployed]:
    """Log two versions, deploy `@champion` -> 1, and remove the deployment afterwards."""
    catalog = f"d{uuid.uuid4().hex[:10]}"
    name = f"{catalog}.ml.iris"
    async with stack.admin() as admin:
        await admin.catalogs.create(catalog)
        await admin.schemas.create(f"{catalog}.ml")
        for model in models:
            saved = model.in_onnx(name) if isinstance(model, Nearest) else model
            await admin.log_model(saved, name, example=ROWS[:3], progress=False)
        await admin.aliases.set(name, {"champion": 1})
        await admin.deployments.create(name, f"{name}@champion", replicas=replicas)
        await admin.deployments.wait(name, timeout=120)
        try:
            yield Deployed(name, models)
        finally:
            await admin.deployments.delete(name)
            await admin.deployments.wait_deleted(name)


@contextmanager
def deployed_for_module(stack: Stack, *, replicas: int = 1, models: Models = IN_ONNX) -> Iterator[Deployed]:
    """Do the same on an event loop of its own, for fixtures that outlive a test."""
    with asyncio.Runner() as runner:
        context = deployed(stack, replicas=replicas, models=models)
        one = runner.run(context.__aenter__())
        try:
            yield one
        finally:
            runner.run(context.__aexit__(None, None, None))


@dataclass
class Load:
    """Predictions that run while something happens: the versions that answered, in order, and the failures."""

    versions: list[int] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    begun: int = 0
    numbers: list[int] = field(default_factory=list)
    """Of the prediction of each answer, how many had begun before it."""

    async def more(self, count: int, *, version: int | None = None, timeout: float = 60.0) -> None:
        """Wait for `count` more answers, of one version if given.

        Raises:
            TimeoutError: they did not come.
        """
        seen = len(self.versions)
        deadline = time.monotonic() + timeout
        while sum(version in (None, one) for one in self.versions[seen:]) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self.versions) - seen} answers, {len(self.failures)} failures: {self.failures[:1]}"
                )
            await asyncio.sleep(0.02)

    async def of_now(self, count: int) -> set[int]:
        """Wait for `count` more answers, and return the versions of those whose prediction was not yet on its way.

        Raises:
            TimeoutError: they did not come.
        """
        first = self.begun
        await self.more(count)
        return {
            version for version, number in zip(self.versions, self.numbers, strict=True) if number >= first
        }


@asynccontextmanager
async def load(predict: Callable[[], Awaitable[int]], *, callers: int = 4) -> AsyncIterator[Load]:
    """Call `predict`, which returns the version that answered, again and again within this block."""
    seen = Load()
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            number, seen.begun = seen.begun, seen.begun + 1
            try:
                version = await predict()
                seen.versions.append(version)
                seen.numbers.append(number)
            except Exception as error:  # noqa: BLE001 - each is counted, and the test looks at them
                seen.failures.append(error)
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
        try:
            yield seen
        finally:
            stop.set()


def predictor(client: AsyncClient, deployment: Deployed) -> Callable[[], Awaitable[int]]:
    """Return a call that predicts one row, checks the answer against its version's own model, and returns the version."""

    async def predict() -> int:
        answer = await client.predict(deployment.name, ROWS[:1], outputs=["output"])
        version = int(answer.model_version)
        assert answer.output.tolist() == deployment.expected(version, ROWS[:1])
        return version

    return predict


@asynccontextmanager
async def over_one_stream(
    client: AsyncClient, name: str, row: Any
) -> AsyncIterator[Callable[[], Awaitable[Prediction]]]:
    """Give a call that predicts one row over a stream that stays open within this block."""
    wanted: asyncio.Queue[None] = asyncio.Queue()

    async def rows() -> AsyncIterator[Any]:
        while True:
            await wanted.get()
            yield {"input": row}

    async with aclosing(client.endpoints.predict_stream(name, rows(), outputs=["output"])) as answers:

        async def predict() -> Prediction:
            wanted.put_nowait(None)
            return await anext(answers)

        yield predict
