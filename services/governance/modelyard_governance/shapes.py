"""Checks of single values of a request, each naming its field."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from modelyard_governance.models import PRINCIPAL_NAME
from modelyard_kit import idempotency
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.protos import moment

if TYPE_CHECKING:
    from google.protobuf.message import Message

TEXT_LENGTH = 255


def text(value: str, field: str, *, maximum: int = TEXT_LENGTH) -> str:
    """Return a text of so many characters at most."""
    if len(value) > maximum:
        raise InvalidField(field, f"has {len(value)} characters; {maximum} are the most")
    if "\0" in value:
        raise InvalidField(field, "holds a zero character, which cannot be stored")
    return value


def required(value: str, field: str) -> str:
    """Return a text that must not be empty."""
    if not value:
        raise InvalidField(field, "is required")
    return text(value, field, maximum=1_024)


def known_name(value: str, field: str) -> str:
    """Return the name of a principal that should exist; one of the wrong form cannot."""
    if not value:
        raise InvalidField(field, "is required: the name of a principal")
    if not re.fullmatch(PRINCIPAL_NAME, value):
        raise NotFound("principal", value)
    return value


def optional_name(value: str, field: str = "principal") -> str:
    """Return the name of a principal, or an empty text."""
    return known_name(value, field) if value else ""


def time(message: Timestamp, field: str) -> datetime:
    """Return a moment."""
    try:
        return moment(message)
    except (ValueError, OverflowError) as error:
        raise InvalidField(field, "is not a time between the years 1 and 9999") from error


def fingerprint(request: Message) -> str:
    """Return what tells a repetition of a request from another one under the same `request_id`."""
    content = type(request)()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return idempotency.fingerprint(content.SerializeToString(deterministic=True))
