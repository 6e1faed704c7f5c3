"""Secrets of webhooks: made here, shown once, stored encrypted with a key that is not in the database."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from modelyard_governance.secret_files import UnusableSecretError, create_once
from modelyard_governance.signing import warn_if_exposed

PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret as libraries of Standard Webhooks take it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`: HMAC-SHA256 over id, time in seconds, and body."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Sealer:
    """Encrypts secrets with the first of some keys, and opens those of all."""

    def __init__(self, keys: list[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, secret: str) -> bytes:
        """Return a secret as it is stored."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str | None:
        """Return the secret; None if it was sealed with a key that is not there any more."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            return None


def load_or_create_sealer(path: Path) -> Sealer:
    """Read the key file, a key in each line and the one in use first; make one if there is none.

    Raises:
        UnusableSecretError: the file holds something else.
    """
    if not path.exists():
        create_once(path, Fernet.generate_key() + b"\n")
    try:
        sealer = Sealer(path.read_bytes().split())
        sealer.seal("")
    except (ValueError, IndexError) as error:
        raise UnusableSecretError(f"{path}: must hold keys of Fernet, one in each line ({error})") from error
    warn_if_exposed(path)
    return sealer
