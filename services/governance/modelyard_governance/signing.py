"""The keys that sign JWTs, and the JWTs (RFC 7519, ES256)."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard_governance.canonical import canonical_json
from modelyard_governance.models import Account
from modelyard_kit.access import Privilege
from modelyard_kit.auth import ALGORITHM, AUDIENCE
from modelyard_kit.clock import Clock, utc_now
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


@dataclass(frozen=True)
class SigningKey:
    """A key pair that signs from `sign_time` on, and verifies until `withdraw_time` or for ever."""

    secret: ec.EllipticCurvePrivateKey
    public: PublicKey
    sign_time: datetime
    withdraw_time: datetime | None = None

    @classmethod
    def of(
        cls, secret: ec.EllipticCurvePrivateKey, sign_time: datetime, withdraw_time: datetime | None = None
    ) -> SigningKey:
        """Return a key pair with its public half."""
        return cls(secret, _public(secret), sign_time, withdraw_time)


class Signer:
    """Signs JWTs with the newest of its keys whose time has come.

    Args:
        key: EC P-256 private key to begin with; see `use`.
        issuer: value of the `iss` claim.
        lifetime: how long a JWT works at most.
        clock: the time.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        issuer: str,
        lifetime: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self._keys: tuple[SigningKey, ...] = (SigningKey.of(key, datetime.min.replace(tzinfo=UTC)),)
        self._clock = clock
        self.lifetime = lifetime
        self.issuer = issuer

    def use(self, keys: Sequence[SigningKey]) -> None:
        """Take these keys from now on."""
        self._keys = tuple(sorted(keys, key=lambda key: key.sign_time, reverse=True))

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """What verifies JWTs now or soon, the newest first."""
        now = self._clock()
        return tuple(key for key in self._keys if key.withdraw_time is None or key.withdraw_time > now)

    @property
    def public(self) -> PublicKey:
        """Public half of the key that signs now."""
        return self._signing(self._clock()).public

    def _signing(self, now: datetime) -> SigningKey:
        return next(key for key in self._keys if key.sign_time <= now)

    def sign(
        self,
        account: Account,
        *,
        now: datetime,
        until: datetime | None = None,
        privileges: Collection[Privilege] = (),
    ) -> tuple[str, datetime]:
        """Return a JWT for a principal and when it stops working: after the lifetime, and not later than `until`.

        With `privileges` it gives these only. Envoy, which does not know privileges, is told apart whether EXECUTE is missing.
        """
        key = self._signing(now)
        expire_time = now + self.lifetime if until is None else min(now + self.lifetime, until)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": account.id,
            "name": account.name,
            "kind": account.kind,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": new_id(),
        }
        if privileges:
            claims["privileges"] = sorted(privileges)
            if Privilege.EXECUTE not in privileges:
                claims["no_execute"] = True
        token = jwt.encode(claims, key.secret, algorithm=ALGORITHM, headers={"kid": key.public.kid})
        return token, expire_time.replace(microsecond=0)

    async def keys(self, _refresh: bool = False) -> Mapping[str, Any]:  # noqa: FBT001, FBT002 - the verifier's signature
        """Return the public keys by key id, for a `TokenVerifier` in the same process."""
        return {key.public.kid: key.secret.public_key() for key in self.published}


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
