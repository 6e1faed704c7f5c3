"""The messages of the change feed, and its token: opaque to callers, and nothing but a place in the order of events."""

from __future__ import annotations

import re

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard_catalog import names
from modelyard_catalog.commands import Watch
from modelyard_catalog.feed import Step
from modelyard_kit import paging
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import event_to_proto

MAX_TYPES = 50
_MAX_TYPE_LENGTH = 100
_TYPE = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)*(\.\*)?")
_MARK = "feed"
_MAX_POSITION = 2**63 - 1


def parse_watch(request: service.WatchEventsRequest) -> Watch:
    """Check the shape of a request to watch events."""
    if len(request.types) > MAX_TYPES:
        raise InvalidField("types", f"has {len(request.types)} entries, at most {MAX_TYPES} are allowed")
    for index, text in enumerate(request.types):
        if not _TYPE.fullmatch(text) or len(text) > _MAX_TYPE_LENGTH:
            raise InvalidField(
                f"types[{index}]",
                "is not a type of event: write it as catalog.alias.moved, or catalog.alias.*; no types mean all",
            )
    parts = request.resource.count(".") + 1
    if request.resource and parts > 3:
        raise InvalidField(
            "resource", "must be the name of a catalog, schema or model, of one to three parts"
        )
    feed_id, position = _place(request.resume_token)
    return Watch(
        position=position,
        feed_id=feed_id,
        from_beginning=request.from_beginning,
        types=tuple(text for text in request.types if not text.endswith("*")),
        prefixes=tuple(text[:-1] for text in request.types if text.endswith("*")),
        resource=names.path("resource", request.resource, parts) if request.resource else (),
    )


def _place(token: str) -> tuple[str, int | None]:
    """Return the id of a feed and a number in it; nothing of no token."""
    if not token:
        return "", None
    try:
        key = paging.decode_token(token, str, str, int)
    except InvalidField:
        key = None
    if key is None or key[0] != _MARK or not 0 <= int(key[2]) <= _MAX_POSITION:
        raise InvalidField("resume_token", "is not a token of WatchEvents; send one as it came, unchanged")
    return str(key[1]), int(key[2])


def render_step(step: Step) -> service.WatchEventsResponse:
    """Return the message of a step."""
    return service.WatchEventsResponse(
        events=map(event_to_proto, step.events),
        resume_token=paging.encode_token([_MARK, step.feed_id, step.position]),
    )
