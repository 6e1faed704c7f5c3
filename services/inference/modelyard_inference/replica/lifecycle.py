"""Where a replica is in its life, who is asking, and who waits to hear."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from modelyard_inference.replica.errors import ReplicaNotReady


class State(StrEnum):
    """State of a replica, with the word that callers read."""

    LOADING = "loading"
    READY = "ready"
    WAITING = "waiting for the server that runs its model"
    DRAINING = "draining"


class Lifecycle:
    """The state and the number of predictions in flight; for the event loop only."""

    def __init__(self) -> None:
        self.state = State.LOADING
        self.in_flight = 0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether predictions are answered."""
        return self.state is State.READY

    def move(self, state: State) -> None:
        """Change the state and tell everybody who waits."""
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """The event of the next change; take it before looking at the state, so that none is missed."""
        return self._changed

    def enter(self) -> None:
        """Count a prediction in.

        Raises:
            ReplicaNotReady: while loading, waiting or draining.
        """
        if self.state is not State.READY:
            raise ReplicaNotReady(self.state.value)
        self.in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count a prediction out."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no prediction is in flight."""
        await self._idle.wait()
