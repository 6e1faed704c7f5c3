"""Model cards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class CardFormat(StrEnum):
    """What a card can be rendered as."""

    HTML = "HTML"
    PDF = "PDF"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One revision of the card of a version; a draft has revision 0. `completeness` goes from 0 to 1."""

    model_version: str
    revision: int = 0
    content: str = ""
    completeness: float = 0.0
    missing: tuple[str, ...] = ()
    etag: str = ""
    comment: str = ""
    author_id: str = ""
    author_name: str = ""
    create_time: datetime | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The content as it is, to be read or changed and set again."""
        document: dict[str, Any] = json.loads(self.content or "{}")
        return document


@dataclass(frozen=True, kw_only=True)
class CardChange:
    """One value that differs between two revisions, as JSON; empty where there is none."""

    path: str
    before: str = ""
    after: str = ""
