"""Identifiers."""

from __future__ import annotations

import uuid_utils


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562): unique, and ordered by the time it was made."""
    return str(uuid_utils.uuid7())
