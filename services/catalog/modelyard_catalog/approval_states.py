"""Rule of approval states: governance tells them, lists show them, and nothing is decided by them."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard_catalog.commands import ApprovalChange
from modelyard_catalog.store import CatalogStore
from modelyard_kit.db import Database


class ApprovalStates:
    """The use case of noting where versions stand."""

    def __init__(self, db: Database, store: CatalogStore) -> None:
        self._db = db
        self._store = store

    async def set(self, changes: Sequence[ApprovalChange]) -> None:
        """Note the states; late and repeated ones change nothing, and no event tells of them: governance recorded the review."""
        await self._db.in_tx(
            lambda connection: self._store.set_approvals(connection, changes), isolation="READ COMMITTED"
        )
