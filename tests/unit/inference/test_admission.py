"""Questions to the catalog about the use of versions: asked in the background, and consent counts once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from modelyard_inference.admission import AGAIN_SECONDS, Admission
from modelyard_inference.planner.observed import Admitted
from modelyard_kit.errors import DomainError, InvalidState, NotFound, PeerUnavailable
from tests.unit.inference.test_planner import deployment, version

WANTED = deployment()


class Catalog:
    """Answers what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def require_usable(self, version_id: str, schema_id: str) -> None:
        self.asked.append((version_id, schema_id))
        await self.answers.wait()
        if self.error:
            raise self.error


class Asked:
    def __init__(self) -> None:
        self.catalog = Catalog()
        self.now = 0.0
        self.woken = asyncio.Event()
        self.admission = Admission(cast("Any", self.catalog), self.woken.set, monotonic=lambda: self.now)

    async def ask(self) -> dict[str, Admitted]:
        self.woken.clear()
        self.admission.ask(WANTED, version(1))
        await asyncio.wait_for(self.woken.wait(), 30)
        return dict(self.admission.answers(WANTED))


async def test_consent_is_given_once() -> None:
    asked = Asked()
    assert await asked.ask() == {"v1": Admitted(allowed=True)}
    assert asked.catalog.asked == [("v1", "s")]
    assert asked.admission.answers(WANTED) == {}


async def test_consent_to_an_earlier_revision_is_none() -> None:
    asked = Asked()
    asked.admission.ask(WANTED, version(1))
    await asyncio.wait_for(asked.woken.wait(), 30)
    assert asked.admission.answers(replace(WANTED, revision=2)) == {}
    assert asked.admission.answers(WANTED) == {}


@pytest.mark.parametrize(
    ("error", "gone", "told"),
    [
        (NotFound("model_version", "v1"), True, "prod.ml.iris/1 was deleted"),
        (InvalidState("schema", "prod.ml", state="being deleted", wanted="not deleted"), False, "prod.ml"),
        (PeerUnavailable("catalog"), False, "cannot be used yet: the catalog service cannot be reached"),
        (RuntimeError("broken"), False, "the catalog cannot be asked: broken"),
    ],
)
async def test_a_refusal_stays_until_it_is_asked_about_again(
    error: DomainError | RuntimeError, gone: bool, told: str
) -> None:
    asked = Asked()
    asked.catalog.error = error
    (refusal,) = (await asked.ask()).values()
    assert (refusal.allowed, refusal.gone) == (False, gone)
    assert told in refusal.problem
    assert asked.admission.answers(WANTED) == {"v1": refusal}
    asked.admission.ask(WANTED, version(1))
    assert len(asked.catalog.asked) == 1  # just refused
    asked.now += AGAIN_SECONDS
    asked.catalog.error = None
    assert await asked.ask() == {"v1": Admitted(allowed=True)}


async def test_a_question_is_asked_once_at_a_time_and_ends_with_the_service() -> None:
    asked = Asked()
    asked.catalog.answers.clear()
    for _ in range(3):
        asked.admission.ask(WANTED, version(1))
        await asyncio.sleep(0)
    assert len(asked.catalog.asked) == 1
    await asked.admission.close()
    assert asked.admission.answers(WANTED) == {}


async def test_answers_about_deployments_that_are_gone_are_forgotten() -> None:
    asked = Asked()
    asked.catalog.error = NotFound("model_version", "v1")
    await asked.ask()
    asked.admission.keep([])
    assert asked.admission.answers(WANTED) == {}
