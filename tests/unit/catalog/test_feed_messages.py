"""Requests for events, and the token that says where to go on."""

from __future__ import annotations

import pytest

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard_catalog.commands import Watch
from modelyard_catalog.feed import Step
from modelyard_catalog.feed_messages import MAX_TYPES, parse_watch, render_step
from modelyard_kit.access import SYSTEM
from modelyard_kit.auth import Principal
from modelyard_kit.errors import InvalidField
from modelyard_kit.outbox import Event
from modelyard_kit.paging import encode_token


def test_nothing_given_means_everything_from_now() -> None:
    expected = Watch(position=None, from_beginning=False, types=(), prefixes=(), resource=())
    assert parse_watch(service.WatchEventsRequest()) == expected


def test_everything_given() -> None:
    request = service.WatchEventsRequest(
        types=["catalog.alias.moved", "catalog.model.*"], resource="prod.ml", from_beginning=True
    )
    assert parse_watch(request) == Watch(
        position=None,
        from_beginning=True,
        types=("catalog.alias.moved",),
        prefixes=("catalog.model.",),
        resource=("prod", "ml"),
    )


@pytest.mark.parametrize("position", [0, 1, 2**63 - 1])
def test_the_token_of_a_step_is_taken_back(position: int) -> None:
    token = render_step(Step((), position)).resume_token
    assert parse_watch(service.WatchEventsRequest(resume_token=token)).position == position


def test_a_step_carries_its_events_in_order() -> None:
    ada = Principal("1", "ada", "user")
    events = tuple(Event("kit.thing.changed", SYSTEM, ada, "r", {"n": n}) for n in range(3))
    message = render_step(Step(events, 3))
    assert [event.data["n"] for event in message.events] == [0, 1, 2]
    assert [event.id for event in message.events] == [event.id for event in events]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "é",
        "WzFd",
        encode_token([1]),
        encode_token(["page", 1]),
        encode_token(["feed", -1]),
        encode_token(["feed", 2**63]),
        encode_token(["feed", "1"]),
        encode_token(["feed", 1, 2]),
    ],
)
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidField, match="resume_token"):
        parse_watch(service.WatchEventsRequest(resume_token=token))


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "*",
        ".*",
        "catalog.",
        "catalog.*.moved",
        "Catalog.alias",
        "catalog*",
        "a b",
        "a" * 101,
        "catalog.é",
    ],
)
def test_wrong_types_are_named(kind: str) -> None:
    with pytest.raises(InvalidField, match=r"types\[1\]"):
        parse_watch(service.WatchEventsRequest(types=["catalog.alias.moved", kind]))


def test_types_have_a_bound() -> None:
    assert len(parse_watch(service.WatchEventsRequest(types=["a.b"] * MAX_TYPES)).types) == MAX_TYPES
    with pytest.raises(InvalidField, match="types"):
        parse_watch(service.WatchEventsRequest(types=["a.b"] * (MAX_TYPES + 1)))


@pytest.mark.parametrize("name", ["a.b.c.d", "a..b", ".", "prod.ml.iris/1", "prod.ml.iris@champion"])
def test_wrong_resources_are_refused(name: str) -> None:
    with pytest.raises(InvalidField, match="resource"):
        parse_watch(service.WatchEventsRequest(resource=name))
