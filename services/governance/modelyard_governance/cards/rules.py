"""The use cases of model cards: drafted from the catalog, written as revisions, compared, painted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import ModuleType
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.cards import html, store
from modelyard_governance.cards.content import Change, completeness, differences, merged
from modelyard_governance.cards.models import Card, Document, Format, SetCard
from modelyard_governance.cards.page import lay_out
from modelyard_governance.cards.prefill import Facts, draft
from modelyard_governance.models import Directory
from modelyard_kit import limits
from modelyard_kit.access import Link
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import EtagMismatch, NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.outbox import Event, append

KIND = "model_card"


class KnowsFacts(Protocol):
    """Tells what the catalog knows."""

    async def of(self, call: Call, reference: str) -> Facts:
        """Return what the caller may know of a version.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """


class Cards:
    """Keeps the cards of versions by their ids, so that a rename changes nothing.

    Each use case raises NotFound when there is no such version, and PeerUnavailable when the catalog does not answer.
    """

    def __init__(self, *, database: Database, directory: Directory, facts: KnowsFacts, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._facts = facts
        self._clock = clock
        self._painting = asyncio.Semaphore(1)  # a thread that paints takes its time from all others

    async def draft(self, call: Call, reference: str) -> Card:
        """Return a card with what the catalog knows, under what the newest revision says."""
        version = await self._version(reference)
        facts = await self._facts.of(call, version.name)
        newest = await self._database.read(lambda connection: store.get(connection, version.id, version.name))
        content = merged(draft(facts), newest.content if newest else {})
        return Card(
            version.name,
            0,
            newest.etag if newest else "",
            content,
            author_id=call.principal.id,
            author=call.principal.name,
            create_time=self._clock(),
            completeness=completeness(content),
        )

    async def set(self, call: Call, command: SetCard) -> Card:
        """Write the next revision, unless the newest says the same.

        Raises:
            EtagMismatch: somebody wrote another one meanwhile.
            LimitExceeded: there are too many.
        """
        version = await self._version(command.reference)

        async def work(connection: AsyncConnection) -> Card:
            newest = await store.get(connection, version.id, version.name)
            actual = newest.etag if newest else ""
            if newest is not None and newest.content == command.content:
                return newest
            if command.etag and command.etag != actual:
                raise EtagMismatch(KIND, version.name, expected=command.etag, actual=actual)
            revision = newest.revision + 1 if newest else 1
            limits.check("card_revisions", revision)
            card = Card(
                version.name,
                revision,
                str(revision),
                command.content,
                command.comment,
                call.principal.id,
                call.principal.name,
                self._clock(),
                completeness(command.content),
            )
            await store.add(connection, version.id, card)
            await append(connection, _event(version, newest, card, call))
            return card

        return await self._database.in_tx(work)

    async def get(self, reference: str, revision: int) -> Card:
        """Return a revision, or with 0 the newest.

        Raises:
            NotFound: there is no such revision.
        """
        return await self._revision(await self._version(reference), revision)

    async def page(self, reference: str, asked: Asked) -> tuple[list[Card], str]:
        """Return a page of revisions without their content, and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        version = await self._version(reference)
        return await self._database.read(
            lambda connection: store.page(connection, version.id, version.name, asked)
        )

    async def compare(self, reference: str, before: int, after: int) -> tuple[Card, Card, list[Change]]:
        """Return two revisions and what differs; 0 as `after` is the newest, 0 as `before` the one before that.

        Raises:
            NotFound: there is no such revision.
        """
        version = await self._version(reference)
        new = await self._revision(version, after)
        old = Card(version.name, 0, "")
        if before or new.revision > 1:
            old = await self._revision(version, before or new.revision - 1)
        return old, new, differences(old.content, new.content)

    async def evidence(self, version: Link) -> dict[str, Any]:
        """Return what policies see of the newest card of a version; docs/policies.md tells what is in it."""
        card = await self._database.read(lambda connection: store.get(connection, version.id, version.name))
        found = completeness(card.content if card else {})
        return {
            "present": card is not None,
            "complete": not found.missing,
            "completeness": found.fraction,
            "missing": list(found.missing),
        }

    async def paint(self, reference: str, revision: int, wanted: Format) -> Document:
        """Return a revision as a document, made on a thread.

        Raises:
            NotFound: there is no such revision.
        """
        card = await self.get(reference, revision)
        page = lay_out(
            card.content,
            card.completeness,
            version=card.version,
            revision=card.revision,
            author=card.author,
            time=card.create_time or self._clock(),
        )
        painter = _painter(wanted)
        async with self._painting:
            return Document(await asyncio.to_thread(painter.render, page), painter.MEDIA_TYPE)

    async def _version(self, reference: str) -> Link:
        return (await self._directory.version(reference)).chain[0]

    async def _revision(self, version: Link, revision: int) -> Card:
        card = await self._database.read(
            lambda connection: store.get(connection, version.id, version.name, revision)
        )
        if card is None:
            raise NotFound(KIND, f"{version.name} revision {revision}" if revision else version.name)
        return card


def _painter(wanted: Format) -> ModuleType:
    if wanted is Format.HTML:
        return html
    from modelyard_governance.cards import pdf  # draws by a large library, which a service may never need

    return pdf


def _event(version: Link, newest: Card | None, card: Card, call: Call) -> Event:
    """Return the event of a revision: how much changed, not what, which the revisions themselves keep."""
    before = newest or replace(card, revision=0, content={}, completeness=completeness({}))
    data = {
        "comment": card.comment,
        "changes": len(differences(before.content, card.content)),
        "before": {"revision": before.revision, "completeness": before.completeness.fraction},
        "after": {"revision": card.revision, "completeness": card.completeness.fraction},
    }
    return Event("governance.card.revised", version, call.principal, call.request_id, data)
