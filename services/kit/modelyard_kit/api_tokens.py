"""API tokens: `mya_<id>_<secret>`. The id finds the row, the secret is compared by its hash and never stored.

The secret has 256 random bits, so one SHA-256 is enough: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

_FORM = re.compile(r"mya_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


def generate() -> str:
    """Return a new API token."""
    return f"mya_{secrets.token_hex(16)}_{secrets.token_urlsafe(32)}"


def token_id(text: str) -> str | None:
    """Return the id in an API token, or None when the text is none."""
    match = _FORM.fullmatch(text)
    return match.group(1) if match else None


def hash_secret(text: str) -> bytes:
    """Return what is stored of an API token: the SHA-256 of the whole text."""
    return hashlib.sha256(text.encode()).digest()


def matches(text: str, stored_hash: bytes) -> bool:
    """Return whether the token has this hash, in time that does not tell where it differs."""
    return hmac.compare_digest(hash_secret(text), stored_hash)
