"""How replicas end: what to note of it, when to start them again, and what to tell."""

from __future__ import annotations

from datetime import UTC, timedelta

from modelyard_inference.actions import RecordEnd
from modelyard_inference.models import Replica, ReplicaState
from modelyard_inference.planner.observed import Observed

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
GOOD_TIME = timedelta(seconds=60)
"""A replica that was ready this long begins again with the shortest pause."""
LOOP_ENDS = 3
"""Ends in a row, without a good time between, from which on a replica is in a crash loop, and a stepped rollout is taken back."""


def end_of(observed: Observed, replica: Replica, message: str) -> RecordEnd:
    """Return how to note the end of a replica's process: every end in a row lengthens the pause before the next start."""
    if replica.state is ReplicaState.STARTING and _outdated(observed, replica):
        return RecordEnd(replica.id, "", 0, observed.now)
    was_good = replica.ready_time is not None and observed.now - replica.ready_time >= GOOD_TIME
    failures = 0 if was_good else replica.failures
    pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LONGEST_PAUSE)
    ends = failures + 1
    state = ReplicaState.CRASH_LOOP if ends >= LOOP_ENDS else ReplicaState.STOPPED
    return RecordEnd(replica.id, message, ends, observed.now + timedelta(seconds=pause), state)


def _outdated(observed: Observed, replica: Replica) -> bool:
    """Whether a start says nothing any more: a caller has changed the deployment since, perhaps what was wrong."""
    return replica.start_time is not None and replica.start_time < observed.deployment.update_time


def told(replica: Replica) -> str:
    """Return how a replica ended last, for people; empty if it did not, or is well again."""
    if not replica.message or replica.failures < LOOP_ENDS:
        return replica.message
    again = f"; next start at {replica.not_before.astimezone(UTC):%H:%M:%S} UTC" if replica.not_before else ""
    return f"crash loop, {replica.failures} ends in a row{again}: {replica.message}"
