"""The key that signs JWTs, and the JWTs (RFC 7519, ES256)."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard_governance.canonical import canonical_json
from modelyard_governance.models import Account
from modelyard_kit.auth import ALGORITHM, AUDIENCE
from modelyard_kit.ids import new_id

_COORDINATE_BYTES = 32

_log = structlog.get_logger()


class UnusableKeyError(Exception):
    """The file does not hold a key that can sign."""


@dataclass(frozen=True)
class PublicKey:
    """Public half as a JSON Web Key (RFC 7517) of the kind EC P-256."""

    kid: str
    x: str
    y: str


class Signer:
    """Signs JWTs with one private key.

    Args:
        key: EC P-256 private key.
        issuer: value of the `iss` claim.
        lifetime: how long a JWT works at most.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, issuer: str, lifetime: timedelta) -> None:
        self._key = key
        self._lifetime = lifetime
        self.issuer = issuer
        self.public = _public(key)

    def sign(self, account: Account, *, now: datetime, until: datetime | None = None) -> tuple[str, datetime]:
        """Return a JWT for a principal and when it stops working: after the lifetime, and not later than `until`."""
        expire_time = now + self._lifetime if until is None else min(now + self._lifetime, until)
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": account.id,
            "name": account.name,
            "kind": account.kind,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": new_id(),
        }
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self.public.kid})
        return token, expire_time.replace(microsecond=0)

    async def keys(self, _refresh: bool = False) -> Mapping[str, Any]:  # noqa: FBT001, FBT002 - the verifier's signature
        """Return the public keys by key id, for a `TokenVerifier` in the same process."""
        return {self.public.kid: self._key.public_key()}


def load_or_create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the signing key; make the file, readable by its owner alone, if there is none.

    Several processes may start at once: all end up with the same key.

    Raises:
        UnusableKeyError: the file holds something else.
    """
    if not path.exists():
        _create(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise UnusableKeyError(f"{path}: not an unencrypted private key in PEM ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableKeyError(f"{path}: ES256 needs an EC key on the curve P-256")
    warn_if_exposed(path)
    return key


def warn_if_exposed(path: Path) -> None:
    """Log a warning when others than the owner may read a secret file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("secret_file_exposed", path=str(path), mode=f"{mode:04o}", fix="chmod 600")


def _create(path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where another process was first, so nobody ever sees half a key or two keys.
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _public(key: ec.EllipticCurvePrivateKey) -> PublicKey:
    numbers = key.public_key().public_numbers()
    x, y = (_base64url(value.to_bytes(_COORDINATE_BYTES, "big")) for value in (numbers.x, numbers.y))
    # The thumbprint of RFC 7638: the same key has the same id wherever it is used.
    thumbprint = canonical_json({"crv": "P-256", "kty": "EC", "x": x, "y": y})
    return PublicKey(_base64url(hashlib.sha256(thumbprint.encode()).digest()), x, y)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
