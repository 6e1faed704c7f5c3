"""Asks a catalog, or MLflow's server, from a process of its own, closed loop, and keeps how long each answer took.

Requests are made before they are measured, and answers are checked after: what is measured is the server, its transport, and
as little of a client as there can be (raw gRPC calls, raw HTTP requests on connections that stay).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import Pool
from typing import Any

import grpc.aio

from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard_kit.channels import CLIENT_OPTIONS

SERVICE = "/modelyard.api.catalog.v1.CatalogService"
WARM_UP_SECONDS = 0.2


@dataclass(frozen=True)
class Question:
    """One request, and what its answer must have.

    Attributes:
        body: the message, or of MLflow the JSON of a POST; empty for a GET.
        has: bytes that are in every right answer.
        rows: rows of a page; None for what is no page.
    """

    body: bytes
    has: bytes = b""
    rows: int | None = None


@dataclass(frozen=True)
class Job:
    """Questions of one kind, asked in turn.

    Attributes:
        target: address of a catalog, or the URL of MLflow.
        call: name of the RPC; of MLflow, what it is called here.
        questions: what to ask.
        bearer: access token; empty for MLflow, which has none.
        paths: of MLflow, path and query of each question.
        unique: whether each request gets a `request_id` of its own, as the client gives it.
    """

    target: str
    call: str
    questions: Sequence[Question]
    bearer: str = ""
    paths: Sequence[str] = ()
    unique: bool = False


@dataclass(frozen=True)
class Measured:
    """Latencies in seconds, and how many calls gave up because others kept winning."""

    latencies: list[float]
    seconds: float
    contended: int


def measure(pool: Pool, job: Job, concurrency: int, seconds: float) -> Measured:
    """Ask from another process for some seconds.

    Raises:
        AssertionError: an answer was wrong.
    """
    return pool.apply(_measure, (job, concurrency, seconds))


@cache
def _runner() -> asyncio.Runner:
    """Return the one event loop of the process that asks: grpc.aio does not survive that of its first call."""
    return asyncio.Runner()


def _measure(job: Job, concurrency: int, seconds: float) -> Measured:
    return _runner().run(_ask(job, concurrency, seconds))


async def _ask(job: Job, concurrency: int, seconds: float) -> Measured:
    opened = _mlflow if job.paths else _catalog
    async with opened(job, concurrency) as ask:
        await _loop(job, ask, concurrency, WARM_UP_SECONDS)
        return await _loop(job, ask, concurrency, seconds)


class Contended(Exception):
    """The server gave up because others kept winning, which its contract allows."""


Ask = Callable[[int], Awaitable[bytes]]


async def _loop(job: Job, ask: Ask, concurrency: int, seconds: float) -> Measured:
    latencies: list[float] = []
    answers: list[tuple[int, bytes]] = []
    contended = 0
    begin = time.perf_counter()
    end = begin + seconds
    numbers = iter(range(10**9))

    async def caller() -> None:
        nonlocal contended
        while (start := time.perf_counter()) < end:
            number = next(numbers) % len(job.questions)
            try:
                answer = await ask(number)
            except Contended:
                contended += 1
                continue
            latencies.append(time.perf_counter() - start)
            answers.append((number, answer))

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    taken = time.perf_counter() - begin
    for number, answer in answers:
        _check(job, job.questions[number], answer)
    return Measured(latencies, taken, contended)


def _check(job: Job, question: Question, answer: bytes) -> None:
    if question.has not in answer:
        raise AssertionError(f"{job.call}: {question.has!r} is not in {answer[:500]!r}")
    if question.rows is None:
        return
    if job.paths:
        rows = len(json.loads(answer).get("model_versions", ()))
    else:
        rows = len(pb.ListModelVersionsResponse.FromString(answer).model_versions)
    if rows != question.rows:
        raise AssertionError(f"{job.call}: {rows} rows instead of {question.rows}")


class _catalog:  # noqa: N801 - used as a function
    """Raw calls of one RPC: bytes in, bytes out."""

    def __init__(self, job: Job, _concurrency: int) -> None:
        self._job = job

    async def __aenter__(self) -> Ask:
        self._channel = grpc.aio.insecure_channel(self._job.target, options=CLIENT_OPTIONS)
        call: Any = self._channel.unary_unary(f"{SERVICE}/{self._job.call}")
        metadata = (("authorization", f"Bearer {self._job.bearer}"),)

        async def ask(number: int) -> bytes:
            body = self._job.questions[number].body
            if self._job.unique:
                # Two messages one after the other are one message with the fields of both.
                body += pb.CreateModelVersionRequest(request_id=str(uuid.uuid4())).SerializeToString()
            try:
                return bytes(await call(body, metadata=metadata, timeout=60.0))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ABORTED:
                    raise Contended from error
                raise AssertionError(f"{self._job.call}: {error.code()}: {error.details()}") from None

        return ask

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class _mlflow:  # noqa: N801 - used as a function
    """HTTP/1.1 requests, written beforehand, on connections that stay.

    With more than one worker uvicorn leaves Nagle's algorithm on, and sends an answer in two parts, so that the second waits
    40 ms for an acknowledgement that Linux delays. Here it is sent at once (TCP_QUICKACK): what counts is what the server does.
    """

    def __init__(self, job: Job, _concurrency: int) -> None:
        self._host = job.target.removeprefix("http://")
        self._requests = [
            self._written(path, question.body)
            for path, question in zip(job.paths, job.questions, strict=True)
        ]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def _written(self, path: str, body: bytes) -> bytes:
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: application/json\r\n\r\n".encode() + body

    async def __aenter__(self) -> Ask:
        return self._ask

    async def _ask(self, number: int) -> bytes:
        host, _, port = self._host.partition(":")
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(host, int(port))
        if hasattr(socket, "TCP_QUICKACK"):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        writer.write(self._requests[number])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        self._idle.append((reader, writer))
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise AssertionError(f"{self._requests[number][:200]!r}: {head[:50]!r} {content[:500]!r}")
        return content

    async def __aexit__(self, *_: object) -> None:
        for _reader, writer in self._idle:
            writer.close()


# --- The change feed -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrivals:
    """Ids of the versions that were made, and for each when every watcher heard of it, as seconds of the epoch."""

    times: dict[str, list[float]]


def watch(
    pool: Pool, job: Job, watched: str, watchers: int, changes: int, *, pause: float = 0.05
) -> Arrivals:
    """Make versions, one every `pause` seconds, while others watch a resource.

    Raises:
        AssertionError: a watcher did not hear of each of them.
    """
    return pool.apply(_watch, (job, watched, watchers, changes, pause))


def _watch(job: Job, watched: str, watchers: int, changes: int, pause: float) -> Arrivals:
    return _runner().run(_follow(job, watched, watchers, changes, pause))


async def _follow(job: Job, watched: str, watchers: int, changes: int, pause: float) -> Arrivals:
    times: dict[str, list[float]] = {}
    began = asyncio.Semaphore(0)
    metadata = (("authorization", f"Bearer {job.bearer}"),)
    async with grpc.aio.insecure_channel(job.target, options=CLIENT_OPTIONS) as channel:
        call: Any = channel.unary_stream(f"{SERVICE}/WatchEvents")
        request = pb.WatchEventsRequest(resource=watched, types=["catalog.model_version.created"])

        async def follow() -> None:
            seen = 0
            stream = call(request.SerializeToString(), metadata=metadata)
            async for answer in stream:
                now = time.time()
                step = pb.WatchEventsResponse.FromString(answer)
                if seen == 0 and not step.events:
                    began.release()
                for event in step.events:
                    times.setdefault(event.resource.id, []).append(now)
                    seen += 1
                if seen >= changes:
                    return

        tasks = [asyncio.create_task(follow()) for _ in range(watchers)]
        for _ in range(watchers):
            await asyncio.wait_for(began.acquire(), 30)
        async with _catalog(job, 1) as ask:
            for number in range(changes):
                await ask(number % len(job.questions))
                await asyncio.sleep(pause)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert len(times) == changes, f"{len(times)} of {changes} changes were heard of"
    assert all(len(heard) == watchers for heard in times.values()), "a watcher missed a change"
    return Arrivals(times)
