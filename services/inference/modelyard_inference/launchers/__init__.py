"""Launchers start replica processes and find them again; `local` does so on this machine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from modelyard_inference.evidence import Verdict
from modelyard_inference.log_files import REPLICA, Piece, Position, Wanted
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.variables import Variables


@dataclass(frozen=True)
class ReplicaSpec:
    """What to start."""

    id: str
    """Id of the replica. Starting the same id again while it runs finds it."""
    config: ReplicaConfig
    python: str = ""
    """Interpreter of the environment to run it in; empty for the launcher's own."""
    variables: Variables = ()
    """What its environment has beside what every replica has."""


@dataclass(frozen=True)
class Handle:
    """A process that was started. It can be stored and used by a later life of this service."""

    replica_id: str
    process_id: int
    started: str
    """Distinguishes the process from a later one with the same process id."""


@dataclass(frozen=True)
class Found:
    """What a process was found to be doing."""

    running: bool
    report: str = ""
    """While it runs: what it says about itself. After: how it ended and the end of its log."""
    verdict: Verdict | None = None
    """What it found about the signatures of its artifact."""
    problem: str = ""
    """Why it does not answer for now though it runs and was ready: the server that runs its model is not."""


class LaunchFailed(Exception):
    """A process could not be started; the message says why."""


class Launcher(Protocol):
    """Starts, observes and stops replica processes. They outlive the launcher."""

    def address(self, replica_id: str) -> str:
        """Return where the replica with this id listens, always the same."""

    async def start(self, spec: ReplicaSpec) -> Handle:
        """Start a replica, or return the process that runs for its id already.

        Raises:
            LaunchFailed: it cannot be started.
        """

    async def status(self, handle: Handle) -> Found:
        """Return what a process is doing."""

    async def stop(self, handle: Handle, grace: float) -> None:
        """Ask a process to finish, kill it after `grace` seconds; return when it is gone. Repeating it is harmless."""

    async def list(self) -> Collection[Handle]:
        """Return every replica process that runs, whoever started it."""

    async def log_tail(self, replica_id: str, wanted: Wanted, log: str = REPLICA) -> Piece:
        """Return the last lines of a log of a replica that are wanted; none if it has no such log."""

    async def log_on(self, replica_id: str, position: Position | None, log: str = REPLICA) -> Piece:
        """Return the next lines of a log after a position, or from the oldest on."""

    async def forget(self, replica_id: str) -> None:
        """Remove the files of a replica whose process is gone."""
