"""Signed JWTs for tests that stand in for governance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard_kit.auth import ALGORITHM, AUDIENCE, Principal, TokenVerifier

ISSUER = "modelyard"


class Issuer:
    """Signs tokens with a key of its own and verifies them."""

    def __init__(self, kid: str = "test") -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())

    def token(self, principal: Principal, *, life: timedelta = timedelta(minutes=5), **claims: Any) -> str:
        """Return a JWT for a principal; `claims` replace the usual ones."""
        now = datetime.now(UTC)
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": principal.id,
            "name": principal.name,
            "kind": principal.kind,
            "iat": now - timedelta(hours=1),
            "exp": now + life,
            **claims,
        }
        return jwt.encode(payload, self.key, algorithm=ALGORITHM, headers={"kid": self.kid})

    def verifier(self) -> TokenVerifier:
        """Return what accepts this issuer's tokens."""

        async def keys(_refresh: bool) -> Mapping[str, Any]:
            return {self.kid: self.key.public_key()}

        return TokenVerifier(ISSUER, keys)
