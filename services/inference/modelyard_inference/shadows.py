"""Counts how often a shadow answers otherwise than the version that callers heard.

Envoy throws the answers of copies away, so the replicas of both sides keep digests of theirs; here they are fetched every second and
joined by the id that a prediction and its copy have in common. Counts are kept in the database, what still waits for its other half
in memory: a restart of this service loses a few halves, which nobody counts, and no count.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import shadow_rows
from modelyard_inference.ports import Sample, Sampler
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.shadow_rows import Shadowed
from modelyard_kit import telemetry
from modelyard_kit.db import Database

PERIOD_SECONDS = 1.0
SLACK_SECONDS = 5.0
"""Beyond the longest time of a prediction, until its other half is given up."""
MAX_WAITING = 20_000
"""Halves of one shadow that wait for the other; the oldest make room for more."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Half:
    """What one side answered."""

    shadow: bool
    sample: Sample
    since: float


class Comparison:
    """Joins the samples of one shadow with those of what answers."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._waiting: OrderedDict[str, _Half] = OrderedDict()
        self._max_waiting = max_waiting
        self._counts = ShadowCounts()

    def add(self, samples: Iterable[Sample], forgotten: int, *, shadow: bool, now: float) -> None:
        """Take what a replica of one side answered; `forgotten` samples of it were lost before anybody took them."""
        if not shadow:
            self._counts += ShadowCounts(mirrored=forgotten, lost=forgotten)
        for sample in samples:
            if not shadow:
                self._counts += ShadowCounts(mirrored=1)
            other = self._waiting.get(sample.id)
            if other is not None and other.shadow is not shadow:
                del self._waiting[sample.id]
                pair = (other.sample, sample) if shadow else (sample, other.sample)
                self._counts += _compared(*pair)
            elif other is None:
                self._waiting[sample.id] = _Half(shadow, sample, now)
        while len(self._waiting) > self._max_waiting:
            self._give_up()

    def take(self, before: float) -> ShadowCounts:
        """Give up what waits since before a time, and return what was counted since the last call."""
        while self._waiting and next(iter(self._waiting.values())).since < before:
            self._give_up()
        counts, self._counts = self._counts, ShadowCounts()
        return counts

    def _give_up(self) -> None:
        _, half = self._waiting.popitem(last=False)
        if (
            not half.shadow
        ):  # a copy whose prediction nobody answered, because its caller had gone, is no loss
            self._counts += ShadowCounts(lost=1)


def _compared(answer: Sample, copy: Sample) -> ShadowCounts:
    if copy.error and not answer.error:
        return ShadowCounts(failed=1)
    return ShadowCounts(compared=1, different=int((answer.digest, answer.error) != (copy.digest, copy.error)))


class Shadows:
    """Fetches, joins and counts.

    Args:
        db: the database.
        sampler: asks replicas.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self, db: Database, sampler: Sampler, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._sampler = sampler
        self._monotonic = monotonic
        self._comparisons: dict[str, Comparison] = {}
        self._copies = telemetry.meter().create_counter(
            "modelyard.shadow.copies",
            description="Copies of predictions sent to shadows, by what came of them.",
        )

    async def run(self) -> None:
        """Count for ever."""
        while True:
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("shadows_not_counted", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Fetch once what replicas kept, and note what came of it."""
        shadowed = await self._db.query(shadow_rows.shadowed)
        for gone in self._comparisons.keys() - {one.group_id for one in shadowed}:
            del self._comparisons[gone]
        await asyncio.gather(*map(self._count, shadowed))

    async def _count(self, shadowed: Shadowed) -> None:
        comparison = self._comparisons.setdefault(shadowed.group_id, Comparison())
        # The answers first: a half that is taken a moment too early only waits for the next look.
        await self._fetch(comparison, shadowed.answering, shadow=False)
        await self._fetch(comparison, shadowed.copied, shadow=True)
        counts = comparison.take(self._monotonic() - shadowed.timeout_seconds - SLACK_SECONDS)
        if counts != ShadowCounts():
            await self._db.in_tx(lambda connection: shadow_rows.count(connection, shadowed.group_id, counts))
            self.note(shadowed.deployment, asdict(counts))

    def note(self, deployment: str, counts: Mapping[str, int]) -> None:
        """Count copies for whoever scrapes, by what came of them."""
        for outcome, number in counts.items():
            self._copies.add(number, {"deployment": deployment, "outcome": outcome})

    async def _fetch(self, comparison: Comparison, addresses: Sequence[str], *, shadow: bool) -> None:
        for taken in await asyncio.gather(*map(self._sampler.take_samples, addresses)):
            comparison.add(taken.samples, taken.forgotten, shadow=shadow, now=self._monotonic())
