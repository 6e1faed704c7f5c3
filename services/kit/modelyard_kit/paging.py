"""Keyset pages: sizes are clamped, tokens are opaque and hold the key of the last row."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from modelyard_kit.errors import InvalidField


def page_size(value: int, *, default: int = 50, maximum: int = 1_000) -> int:
    """Return the number of rows to send (AIP-158: 0 means the default, above the maximum means the maximum).

    Raises:
        InvalidField: below zero.
    """
    if value < 0:
        raise InvalidField("page_size", f"{value} is below zero; 0 means {default}")
    return min(value, maximum) if value else default


def encode_token(key: Sequence[str | int]) -> str:
    """Return the token of the page after the row with this key."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def decode_token(text: str, *types: type[str] | type[int]) -> tuple[str | int, ...] | None:
    """Return the key in a token, or None for the first page.

    Raises:
        InvalidField: the token does not hold a key of these types.
    """
    if not text:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, RecursionError):  # the last one from deeply nested JSON
        key = None
    fits = isinstance(key, list) and len(key) == len(types)
    if not fits or any(type(value) is not kind for value, kind in zip(key, types, strict=True)):
        raise InvalidField(
            "page_token", "not a token of this list; send next_page_token of the page before, unchanged"
        )
    return tuple(key)
