"""Walks through the lineage graph, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store
from modelyard_catalog.commands import QueryLineage
from modelyard_catalog.graph import EdgeKey, Position
from modelyard_catalog.lineage_store import StoredEdge
from modelyard_kit.limits import LIMITS

MAX_EDGES = LIMITS["lineage_edges_per_answer"].maximum


@dataclass(frozen=True)
class Walk:
    """A page of a walk, and as `Lineage` where the next one begins and whether there are more edges."""

    edges: list[StoredEdge]
    truncated: bool = False
    next: Position | None = None


async def walk(connection: AsyncConnection, start: str, command: QueryLineage) -> Walk:
    """Return a page of the edges within reach, level by level, each edge once.

    A query per level (20 at most each way), not one recursive query: so a node is visited once however many ways lead to
    it, and what is left out is what is farthest. A later page takes the same steps again to know what it has to go on from;
    that, and so every page, is bounded by `lineage_edges_per_walk`.
    """
    ways = [way for way, wanted in ((True, command.upstream), (False, command.downstream)) if wanted]
    frontiers = {way: {start} for way in ways}
    seen = {way: {start} for way in ways}
    page = _Page(command)
    for step, (level, way) in enumerate(product(range(command.depth), ways)):
        final = level == command.depth - 1
        if not frontiers[way] or (final and page.is_before(step)):
            continue
        # Of the last level nothing is gone on from, so that only what the page takes has to be read.
        budget = page.budget
        limit = min(budget, page.room) if final else budget
        edges = await lineage_store.next_edges(
            connection,
            frontiers[way],
            upstream=way,
            limit=limit + 1,
            after=page.after_in(step) if final else None,
        )
        for edge in edges[:limit]:
            near, far = _ends(edge, upstream=way)
            if not page.take(edge, (step, near, far, edge.key.relation)):
                return page.cut()
        if len(edges) > limit:
            return page.cut() if final and budget else Walk(page.edges, truncated=True)
        reached = {_ends(edge, upstream=way)[1] for edge in edges}
        frontiers[way] = reached - seen[way]
        seen[way] |= reached
    return Walk(page.edges)


class _Page:
    """What is read, and what of it is on the page."""

    def __init__(self, command: QueryLineage) -> None:
        self.edges: list[StoredEdge] = []
        self.budget = LIMITS["lineage_edges_per_walk"].maximum
        self._size = command.size
        self._after = command.after
        self._last = command.after
        self._known: set[EdgeKey] = set()

    @property
    def room(self) -> int:
        """Edges that the page still takes."""
        return self._size - len(self.edges)

    def is_before(self, step: int) -> bool:
        """Return whether everything of a step was on earlier pages."""
        return self._after is not None and step < self._after[0]

    def after_in(self, step: int) -> tuple[str, str, str] | None:
        """Return behind which edge of a step the page begins."""
        return self._after[1:] if self._after is not None and step == self._after[0] else None

    def take(self, edge: StoredEdge, position: Position) -> bool:
        """Put an edge on the page unless it was there, here or before; False if there is no room for it."""
        self.budget -= 1
        known = edge.key in self._known
        self._known.add(edge.key)
        if self._after is not None and position <= self._after:
            return True
        if not known:
            if not self.room:
                return False
            self.edges.append(edge)
        self._last = position
        return True

    def cut(self) -> Walk:
        """Return the page as one after which there are more."""
        return Walk(self.edges, truncated=True, next=self._last)


def _ends(edge: StoredEdge, *, upstream: bool) -> tuple[str, str]:
    key = edge.key
    return (key.target_id, key.source_id) if upstream else (key.source_id, key.target_id)
