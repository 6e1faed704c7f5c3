"""Watches of the client: they come back where they broke off, and hand out tokens that lose nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard import Client, _watch
from modelyard.aio import AsyncClient
from modelyard.api.catalog.v1.catalog_service_pb2 import WatchEventsResponse
from modelyard.cli import app
from modelyard.errors import InvalidArgument, PermissionDenied, Unavailable

from .fake import Fake, Refusal


def answer(token: str, *ids: str) -> WatchEventsResponse:
    return WatchEventsResponse(
        events=[{"id": id_, "type": "catalog.alias.moved"} for id_ in ids], resume_token=token
    )


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_FIRST_PAUSE_SECONDS", 0.001)


def scripted(*streams: Callable[[], Iterator[Any]]) -> Callable[[Any], Any]:
    """Answer each watch with the next of these streams."""
    waiting = iter(streams)
    return lambda _request: next(waiting)()


def test_a_watch_goes_on_after_every_kind_of_end(fake: Fake, client: Client) -> None:
    def broken() -> Iterator[Any]:
        yield answer("1")
        yield answer("2", "a", "b")
        raise Refusal("UNAVAILABLE")

    def ended() -> Iterator[Any]:
        yield answer("3", "c")

    def late() -> Iterator[Any]:
        raise Refusal("DEADLINE_EXCEEDED")

    def reset() -> Iterator[Any]:
        raise Refusal("INTERNAL")  # as a proxy says it, without a reason

    def refused() -> Iterator[Any]:
        raise Refusal("PERMISSION_DENIED", "PERMISSION_DENIED")

    fake.answers["WatchEvents"] = scripted(broken, ended, late, reset, refused)
    watch = client.events.watch("prod", types=["catalog.alias.*"], from_beginning=True)
    assert [next(watch).id for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(PermissionDenied):
        next(watch)
    requests = fake.requests("WatchEvents")
    assert [request.resume_token for request in requests] == ["", "2", "3", "3", "3"]
    assert {(r.resource, *r.types, r.from_beginning) for r in requests} == {("prod", "catalog.alias.*", True)}


def test_the_token_passes_an_event_only_when_the_next_is_asked_for(fake: Fake, client: Client) -> None:
    fake.answers["WatchEvents"] = lambda _: iter([answer("1", "a", "b"), answer("2", "c")])
    watch = client.events.watch(resume_token="0")
    tokens = []
    for _ in range(3):
        next(watch)
        tokens.append(watch.resume_token)
    assert tokens == ["0", "0", "1"]
    watch.close()
    assert list(watch) == []


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [("UNAVAILABLE", "", Unavailable), ("INVALID_ARGUMENT", "INVALID_FIELD", InvalidArgument)],
)
def test_a_watch_that_never_began_says_why(
    fake: Fake, client: Client, code: str, reason: str, error: type[Exception]
) -> None:
    def refuse(_request: Any) -> Any:
        raise Refusal(code, reason)

    fake.answers["WatchEvents"] = refuse
    with pytest.raises(error):
        next(client.events.watch())


def test_impatience_does_not_end_a_watch(fake: Fake) -> None:
    fake.answers["WatchEvents"] = lambda _: answer("1", "a")

    async def scenario() -> str:
        async with AsyncClient(fake.target, "secret") as client:
            watch = client.events.watch()
            fake.hanging.add("WatchEvents")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(watch)
            fake.hanging.clear()
            async with asyncio.timeout(60):
                return (await anext(watch)).id

    assert asyncio.run(scenario()) == "a"


def test_a_silent_connection_is_made_anew(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "SILENCE_SECONDS", 0.2)
    numbers = itertools.count()

    def hang_later(_request: Any) -> Any:
        number = next(numbers)
        if number == 1:
            fake.hanging.add("WatchEvents")  # holds the next call only
        return answer(str(number), str(number))

    fake.answers["WatchEvents"] = hang_later
    watch = client.events.watch()
    assert [next(watch).id for _ in range(2)] == ["0", "1"]
    while len(fake.requests("WatchEvents")) < 2:
        pass
    fake.hanging.clear()
    assert next(watch).id == "2"


@pytest.mark.parametrize("output", ["json", "table"])
def test_the_command_prints_a_line_for_each_event(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def stream() -> Iterator[Any]:
        yield answer("5", "a", "b")
        raise Refusal("PERMISSION_DENIED", "PERMISSION_DENIED", "no more")

    fake.answers["WatchEvents"] = lambda _: stream()
    monkeypatch.setenv("MODELYARD_TARGET", fake.target)
    monkeypatch.setenv("MODELYARD_TOKEN", "secret")
    arguments = [
        "events",
        "watch",
        "--resource",
        "prod",
        "--type",
        "catalog.*",
        "--from-beginning",
        "-o",
        output,
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "--resume-token 5" in result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    if output == "json":
        assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    else:
        assert "catalog.alias.moved" in lines[0]
