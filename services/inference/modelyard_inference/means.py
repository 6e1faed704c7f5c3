"""What deployments are made true with: one place for what the reconciler and its steps share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from modelyard_inference.admission import Admission
from modelyard_inference.artifacts import ArtifactCache
from modelyard_inference.environments.cache import EnvironmentCache
from modelyard_inference.launchers import Launcher
from modelyard_inference.ports import Prober
from modelyard_inference.signers import Signers
from modelyard_inference.store import InferenceStore
from modelyard_kit.auth import Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database


@dataclass(frozen=True, kw_only=True)
class Means:
    """Collaborators, ready to be used.

    Attributes:
        actor: returns who is named in events: this service.
        flush_logs: carries what is left of the logs of a replica that has ended to where they are wanted, before its files go.
    """

    db: Database
    store: InferenceStore
    artifacts: ArtifactCache
    environments: EnvironmentCache
    admission: Admission
    signers: Signers
    launcher: Launcher
    prober: Prober
    clock: Clock
    actor: Callable[[], Principal]
    flush_logs: Callable[[str], Awaitable[None]]

    async def close(self) -> None:
        """End what runs in the background, but not replicas, nor what was only lent: database, launcher and prober."""
        await self.artifacts.close()
        await self.environments.close()
        await self.admission.close()
        await self.signers.close()
