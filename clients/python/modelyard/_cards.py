"""Model cards: what a version is for, how it was made and measured, and what to mind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._convert import from_proto, parse_enum, rows
from modelyard._namespace import Namespace, version_reference
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import card_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.errors import InvalidArgument
from modelyard.types import CardChange, CardFormat, ModelCard

if TYPE_CHECKING:
    from collections.abc import Sequence

_RENDER_SECONDS = 60.0


class AsyncCards(Namespace):
    """`client.cards`: cards of versions in the format of SageMaker's model cards, as revisions."""

    async def draft(self, reference: str) -> ModelCard:
        """A card with all that the catalog knows of a version, under what its card says already; stored nowhere."""
        request = pb.DraftModelCardRequest(model_version=version_reference(reference))
        answer = await self._connection.call(self._connection.governance.DraftModelCard, request)
        return from_proto(ModelCard, answer.card)

    async def set(
        self,
        reference: str,
        content: Mapping[str, Any] | str | Path,
        *,
        etag: str = "",
        comment: str = "",
    ) -> ModelCard:
        """Write the next revision of a card; the same content again is no new one.

        Args:
            reference: The version.
            content: The card as a dict, as JSON, or as the path of a JSON file; also as SageMaker's API wraps it
                (`Content` or `ModelCardContent`, and `ModelCardStatus`).
            etag: `etag` of the card that you read: writes only if nobody wrote another revision since.
            comment: What the revision is for.
        """
        request = pb.SetModelCardRequest(
            model_version=version_reference(reference),
            content=await asyncio.to_thread(_text, content),
            etag=etag,
            comment=comment,
        )
        answer = await self._connection.call(self._connection.governance.SetModelCard, request)
        return from_proto(ModelCard, answer.card)

    async def get(self, reference: str, *, revision: int = 0) -> ModelCard:
        """Read a revision of a card, by default the newest."""
        request = pb.GetModelCardRequest(model_version=version_reference(reference), revision=revision)
        answer = await self._connection.call(self._connection.governance.GetModelCard, request)
        return from_proto(ModelCard, answer.card)

    def revisions(
        self,
        reference: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[ModelCard]:
        """Walk through the revisions of a card, without their content.

        Args:
            reference: The version.
            filter: Which ones, `"author = 'ada'"`; see docs/filters.md.
            order_by: Order, `"revision desc"`; by default the oldest first.
            page_size: Rows asked for at once.
        """
        version = version_reference(reference)

        async def fetch(token: str) -> tuple[Sequence[ModelCard], str]:
            request = pb.ListModelCardRevisionsRequest(
                model_version=version, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListModelCardRevisions, request)
            return rows(ModelCard, answer.cards), answer.next_page_token

        return AsyncPager(fetch)

    async def diff(self, reference: str, *, before: int = 0, after: int = 0) -> tuple[CardChange, ...]:
        """What differs between two revisions: by default the newest, and the one before it."""
        request = pb.DiffModelCardsRequest(
            model_version=version_reference(reference), from_revision=before, to_revision=after
        )
        answer = await self._connection.call(self._connection.governance.DiffModelCards, request)
        return tuple(rows(CardChange, answer.changes))

    async def render(
        self,
        reference: str,
        format: CardFormat | str = CardFormat.HTML,  # noqa: A002  (the name in the contract)
        *,
        revision: int = 0,
    ) -> bytes:
        """A revision, by default the newest, as one HTML document that needs nothing else, or as PDF."""
        wanted = parse_enum(CardFormat, format, "format")
        request = pb.RenderModelCardRequest(
            model_version=version_reference(reference),
            revision=revision,
            format=card_pb2.ModelCard.Format.Value(f"FORMAT_{wanted}"),
        )
        method = self._connection.governance.RenderModelCard
        return (await self._connection.call(method, request, timeout=_RENDER_SECONDS)).document


def _text(content: Mapping[str, Any] | str | Path) -> str:
    if isinstance(content, Path):
        return content.read_text(encoding="utf-8")
    if isinstance(content, str):
        return content
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"content: {error}") from error
