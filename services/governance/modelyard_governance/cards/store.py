"""Rows of model cards. Revisions are only ever added."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.cards.content import completeness, dump
from modelyard_governance.cards.models import Card
from modelyard_governance.fields import CARDS
from modelyard_governance.tables import cards
from modelyard_kit.filters import Asked, fetch

_WITHOUT_CONTENT = (
    cards.c.revision,
    cards.c.comment,
    cards.c.author_id,
    cards.c.author_name,
    cards.c.create_time,
)


async def get(connection: AsyncConnection, version_id: str, version: str, revision: int = 0) -> Card | None:
    """Return a revision, by default the newest; `version` is what the version is called now."""
    query = select(cards).where(cards.c.version_id == version_id).order_by(cards.c.revision.desc()).limit(1)
    if revision:
        query = query.where(cards.c.revision == revision)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _card(row, version, json.loads(row["content"])) if row else None


async def page(
    connection: AsyncConnection, version_id: str, version: str, asked: Asked
) -> tuple[list[Card], str]:
    """Return a page of revisions without their content, and the token of the next."""
    query = select(*_WITHOUT_CONTENT).where(cards.c.version_id == version_id)
    rows, token = await fetch(connection, query, asked, CARDS, scope=version_id)
    return [_card(row, version, {}) for row in rows], token


async def add(connection: AsyncConnection, version_id: str, card: Card) -> None:
    """Insert a revision."""
    await connection.execute(
        insert(cards).values(
            version_id=version_id,
            revision=card.revision,
            content=dump(card.content),
            comment=card.comment,
            author_id=card.author_id,
            author_name=card.author,
            create_time=card.create_time,
        )
    )


def _card(row: Any, version: str, content: dict[str, Any]) -> Card:
    return Card(
        version=version,
        revision=row["revision"],
        etag=str(row["revision"]),
        content=content,
        comment=row["comment"],
        author_id=row["author_id"],
        author=row["author_name"],
        create_time=row["create_time"],
        completeness=completeness(content),
    )
