"""Refusals on their way to the audit chain: each is told soon, and no flood makes more events than the limits say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from modelyard_kit import denials
from modelyard_kit.auth import NOBODY, Call, Principal
from modelyard_kit.db import Database
from modelyard_kit.denials import Denials
from modelyard_kit.errors import (
    DomainError,
    NotFound,
    PermissionDenied,
    PolicyUnmet,
    TokenExpired,
    TokenMissing,
)
from modelyard_kit.limits import LIMITS
from modelyard_kit.outbox import Event

PER_PRINCIPAL = LIMITS["denials_per_principal"].maximum
PER_MINUTE = LIMITS["denials_per_minute"].maximum


@dataclass
class Written:
    """Takes the place of the database: keeps what is committed, and refuses while it is away."""

    events: list[Event] = field(default_factory=list)
    away: bool = False
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    async def in_tx(self, work: Callable[[Any], Any], **_options: Any) -> None:
        if self.away:
            raise OperationalError("", {}, Exception("away"))
        await work(self.events)

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    async def append(events: list[Event], event: Event) -> None:
        events.append(event)

    monkeypatch.setattr(denials, "append", append)
    return Written()


@pytest.fixture
def noted(written: Written) -> Denials:
    return Denials(cast("Database", written), "catalog", lambda: written.now)


def call(name: str = "ada") -> Call:
    return Call(Principal(f"id-{name}", name, "user"), "r1")


def refusal(name: str = "prod") -> PermissionDenied:
    error = PermissionDenied("EDIT", "catalog", name)
    error.resource_id = f"id-{name}"
    return error


async def test_a_refusal_is_told_with_all_that_matters(noted: Denials, written: Written) -> None:
    noted.note(call(), "/modelyard.api.catalog.v1.CatalogService/UpdateCatalog", refusal())
    await noted.write()
    (event,) = written.take()
    assert (event.type, event.actor.name, event.request_id) == ("catalog.access.denied", "ada", "r1")
    assert (event.resource.type, event.resource.id, event.resource.name) == ("catalog", "id-prod", "prod")
    assert event.data == {
        "method": "UpdateCatalog",
        "reason": "PERMISSION_DENIED",
        "privilege": "EDIT",
        "message": "this needs EDIT on catalog 'prod'",
        "count": 1,
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PolicyUnmet("MOVE_ALIAS", "prod.ml.iris/1", "prod", ["no"]), ("model_version", "prod.ml.iris/1")),
        (TokenMissing(), ("system", "")),
        (NotFound("catalog", "prod"), None),
        (TokenExpired(), None),
    ],
)
async def test_which_errors_are_refusals(
    noted: Denials, written: Written, error: DomainError, told: tuple[str, str] | None
) -> None:
    noted.note(Call(NOBODY, "r"), "/s/M", error)
    await noted.write()
    assert [(event.resource.type, event.resource.name) for event in written.take()] == (
        [told] if told else []
    )


async def test_the_same_again_is_counted(noted: Denials, written: Written) -> None:
    noted.note(call(), "/s/M", refusal())
    await noted.write()
    assert [event.data["count"] for event in written.take()] == [1]
    for _ in range(1000):
        noted.note(call(), "/s/M", refusal())
        await noted.write()
    assert written.take() == []
    written.now += timedelta(seconds=60)
    await noted.write()
    assert [event.data["count"] for event in written.take()] == [1000]
    written.now += timedelta(seconds=60)
    await noted.write()
    assert (written.take(), noted._attempts, dict(noted._of_principal)) == ([], {}, {})


async def test_what_one_principal_tries_beyond_the_limit_is_one_event(
    noted: Denials, written: Written
) -> None:
    for number in range(PER_PRINCIPAL):
        noted.note(call(), "/s/M", refusal(f"c{number}"))
    await noted.write()
    assert len(written.take()) == PER_PRINCIPAL
    for number in range(PER_PRINCIPAL, PER_PRINCIPAL + 500):
        noted.note(call(), "/s/M", refusal(f"c{number}"))
    noted.note(call("eve"), "/s/M", refusal("other"))
    await noted.write()
    others, of_eve = written.take()
    assert (others.actor.name, others.data["count"], others.data["method"]) == ("ada", 500, "(others)")
    assert (of_eve.actor.name, of_eve.resource.name) == ("eve", "other")


async def test_what_all_try_beyond_the_limit_is_one_event(noted: Denials, written: Written) -> None:
    for number in range(PER_MINUTE + 1):
        noted.note(call(f"u{number}"), "/s/M", refusal())
    noted.note(call("u0"), "/s/M", refusal())
    await noted.write()
    events = written.take()
    assert len(events) == PER_MINUTE + 1
    assert (events[0].data["count"], events[-1].data["count"], events[-1].actor) == (2, 1, NOBODY)


async def test_a_database_that_is_away_gets_it_later(noted: Denials, written: Written) -> None:
    written.away = True
    noted.note(call(), "/s/M", refusal())
    await noted.write()
    noted.note(call(), "/s/M", refusal())
    written.away = False
    await noted.write()
    assert [event.data["count"] for event in written.take()] == [2]


async def test_the_end_writes_what_is_not_due(noted: Denials, written: Written) -> None:
    for _ in range(2):
        noted.note(call(), "/s/M", refusal())
        await noted.write()
    written.take()
    await noted.write(everything=True)
    assert [event.data["count"] for event in written.take()] == [1]


async def test_names_of_any_length_fit(noted: Denials, written: Written) -> None:
    noted.note(call(), "/s/M", refusal("x" * 10_000 + "\0"))
    await noted.write()
    (event,) = written.take()
    assert (len(event.resource.name), len(event.data["message"])) == (255, 255)
