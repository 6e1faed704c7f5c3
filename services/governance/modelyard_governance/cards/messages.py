"""Messages of model cards."""

from __future__ import annotations

from modelyard.api.governance.v1 import card_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance.cards import content
from modelyard_governance.cards.content import Change
from modelyard_governance.cards.models import Card, Format, SetCard
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import timestamp

_LARGEST = 2**62


def parse_set(request: pb.SetModelCardRequest, reference: str) -> SetCard:
    """Return the wanted revision."""
    maximum = limits.LIMITS["comment_length"].maximum
    if len(request.comment) > maximum or "\0" in request.comment:
        raise InvalidField("comment", f"must have at most {maximum} characters, and no zero character")
    if not request.content:
        raise InvalidField("content", "is required: the card as JSON")
    return SetCard(reference, content.parse(request.content), request.etag, request.comment)


def parse_revision(value: int, field: str = "revision") -> int:
    """Return the number of a revision; 0 has a meaning of its own."""
    if not 0 <= value < _LARGEST:
        raise InvalidField(field, f"is {value}; revisions count from 1")
    return value


def parse_format(request: pb.RenderModelCardRequest) -> Format:
    """Return the wanted format."""
    if request.format == card_pb2.ModelCard.FORMAT_HTML:
        return Format.HTML
    if request.format == card_pb2.ModelCard.FORMAT_PDF:
        return Format.PDF
    raise InvalidField("format", "is required: HTML or PDF")


def card_out(card: Card) -> card_pb2.ModelCard:
    """Return the message of a revision."""
    return card_pb2.ModelCard(
        model_version=card.version,
        revision=card.revision,
        content=content.dump(card.content),
        completeness=card.completeness.fraction,
        missing=card.completeness.missing,
        etag=card.etag,
        comment=card.comment,
        author_id=card.author_id,
        author_name=card.author,
        create_time=timestamp(card.create_time),
    )


def revision_out(card: Card) -> card_pb2.ModelCard:
    """Return the message of a revision without its content."""
    message = card_out(card)
    for field in ("content", "completeness", "missing"):
        message.ClearField(field)
    return message


def change_out(change: Change) -> card_pb2.CardChange:
    """Return the message of a value that differs."""
    return card_pb2.CardChange(path=change.path, before=change.before, after=change.after)
