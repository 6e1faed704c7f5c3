"""Asks the catalog whether a version may be begun to be used, after the database says that a deployment wants it.

A deletion in the catalog looks for deployments, and a deployment looks for its version; either could happen between the look and the
act of the other. So both first commit what they mean to do and then look: here, what a deployment wants is committed before this
asks, and the catalog has committed its claim before it asks for deployments. See claims.py of the catalog.

Only a group that is about to be made needs an answer: a version with a group is found by whoever asks for deployments, and never
deleted. Asking runs in the background, so that a slow catalog holds up nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from modelyard_inference.models import Deployment, Version
from modelyard_inference.planner.observed import Admitted
from modelyard_inference.ports import Upstream
from modelyard_kit.errors import DomainError, NotFound

AGAIN_SECONDS = 1.0
"""Pause before a refusal is asked about again: a claim ends, and what was deleted may come back."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Wish:
    """A version that a deployment wants, as of one revision of the deployment."""

    deployment_id: str
    revision: int
    version_id: str


class Admission:
    """Questions to the catalog, and the answers that were not used yet.

    Args:
        upstream: the catalog.
        wake: called when there is an answer.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        upstream: Upstream,
        wake: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._wake = wake
        self._monotonic = monotonic
        self._asking: dict[_Wish, asyncio.Task[None]] = {}
        self._answers: dict[_Wish, tuple[Admitted, float]] = {}

    def answers(self, deployment: Deployment) -> Mapping[str, Admitted]:
        """Return the answers about a deployment as it is now, by the ids of versions.

        Consent is given once: it says nothing about a later moment.
        """
        found = {
            wish: answer for wish, answer in self._answers.items() if wish.deployment_id == deployment.id
        }
        for wish, (answer, _) in found.items():
            if answer.allowed or wish.revision != deployment.revision:
                del self._answers[wish]
        return {
            wish.version_id: answer
            for wish, (answer, _) in found.items()
            if wish.revision == deployment.revision
        }

    def ask(self, deployment: Deployment, version: Version) -> None:
        """Ask about a version, unless that is being done or was just refused."""
        wish = _Wish(deployment.id, deployment.revision, version.id)
        _, asked = self._answers.get(wish, (None, float("-inf")))
        if wish in self._asking or self._monotonic() - asked < AGAIN_SECONDS:
            return
        task = asyncio.create_task(self._ask(wish, deployment, version))
        self._asking[wish] = task
        task.add_done_callback(lambda _: self._ended(wish))

    def keep(self, deployments: Sequence[Deployment]) -> None:
        """Forget what was answered about deployments that are gone."""
        ids = {deployment.id for deployment in deployments}
        self._answers = {wish: answer for wish, answer in self._answers.items() if wish.deployment_id in ids}

    async def close(self) -> None:
        """End every question."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, wish: _Wish, deployment: Deployment, version: Version) -> None:
        try:
            await self._upstream.require_usable(version.id, deployment.schema_id)
            answer = Admitted(allowed=True)
        except NotFound as error:
            answer = Admitted(allowed=False, gone=True, problem=f"{version.name} was deleted: {error}")
        except DomainError as error:
            answer = Admitted(allowed=False, problem=f"{version.name} cannot be used yet: {error}")
        except Exception as error:  # noqa: BLE001 - told and asked again; a task has nobody to raise to
            _log.exception("admission_failed", deployment=deployment.name, version=version.name)
            answer = Admitted(allowed=False, problem=f"{version.name}: the catalog cannot be asked: {error}")
        self._answers[wish] = (answer, self._monotonic())

    def _ended(self, wish: _Wish) -> None:
        del self._asking[wish]
        self._wake()
