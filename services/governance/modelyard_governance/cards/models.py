"""Revisions of model cards, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from modelyard_governance.cards.content import Completeness, Content


class Format(StrEnum):
    """What a card can be painted as."""

    HTML = "HTML"
    PDF = "PDF"


NOTHING = Completeness(0.0, ())
"""Of a card whose content was not read."""


@dataclass(frozen=True)
class Card:
    """A revision; a draft has revision 0, and the etag of the newest one."""

    version: str
    revision: int
    etag: str
    content: Content = field(default_factory=dict)
    comment: str = ""
    author_id: str = ""
    author: str = ""
    create_time: datetime | None = None
    completeness: Completeness = NOTHING


@dataclass(frozen=True)
class SetCard:
    """A wanted revision."""

    reference: str
    content: Content
    etag: str
    comment: str


@dataclass(frozen=True)
class Document:
    """A painted card."""

    content: bytes
    media_type: str
