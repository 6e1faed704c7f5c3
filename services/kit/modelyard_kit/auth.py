"""Who calls: principals, and the check of their tokens.

Tokens are JWTs (RFC 7519) signed with ES256 by governance, for the audience `modelyard`, living minutes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

import jwt
from jwt.algorithms import ECAlgorithm

from modelyard_kit.errors import TokenExpired, TokenInvalid

AUDIENCE = "modelyard"
ALGORITHM = "ES256"

Kind = Literal["user", "service_account", "service"]
KINDS: frozenset[str] = frozenset(("user", "service_account", "service"))


@dataclass(frozen=True)
class Principal:
    """Somebody or something that acts: immutable id, name at the moment, kind."""

    id: str
    name: str
    kind: Kind


NOBODY = Principal("", "", "user")
"""The caller of a public RPC."""


@dataclass(frozen=True)
class Call:
    """One incoming call: who makes it, its id (metadata `x-request-id`), and when it must be done."""

    principal: Principal
    request_id: str
    deadline: datetime | None = None


_current: ContextVar[Call] = ContextVar("modelyard_call")


def current_call() -> Call:
    """Return the call being served. Set by the interceptors before a handler runs."""
    return _current.get()


def set_current_call(call: Call) -> None:
    """Note the call being served in the current context; for interceptors and tests."""
    _current.set(call)


Keys = Callable[[bool], Awaitable[Mapping[str, Any]]]
"""Returns the public keys by key id; with True it asks the issuer again."""


class TokenVerifier:
    """Verifies JWTs of one issuer with its public keys."""

    def __init__(self, issuer: str, keys: Keys) -> None:
        self._issuer = issuer
        self._keys = keys

    async def verify(self, token: str) -> Principal:
        """Return the principal that a JWT names.

        Raises:
            TokenExpired: its time is over.
            TokenInvalid: it is malformed, unsigned, or not from this issuer for this audience.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise TokenInvalid("it is not a JWT; exchange the API token for one") from error
        key = await self._key(str(header.get("kid", "")))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenExpired from error
        except jwt.InvalidTokenError as error:
            raise TokenInvalid(str(error)) from error
        kind = str(claims.get("kind", ""))
        if kind not in KINDS:
            raise TokenInvalid("its claim 'kind' is unknown")
        return Principal(str(claims["sub"]), str(claims.get("name", "")), cast("Kind", kind))

    async def _key(self, kid: str) -> Any:
        key = (await self._keys(False)).get(kid) or (await self._keys(True)).get(kid)
        if key is None:
            raise TokenInvalid("it was signed with a key that the issuer does not have")
        return key


def public_key(kid: str, x: str, y: str) -> Any:
    """Return the key object of a JWK of kind EC P-256 (RFC 7518 section 6.2)."""
    return ECAlgorithm.from_jwk({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
