"""Who calls: principals, and the check of their tokens.

Tokens are JWTs (RFC 7519) signed with ES256 by governance, for the audience `modelyard`, living minutes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import jwt
from jwt.algorithms import ECAlgorithm

from modelyard_kit.errors import TokenExpired, TokenInvalid

if TYPE_CHECKING:
    from modelyard_kit.access import Chain
    from modelyard_kit.authorization import Permit

AUDIENCE = "modelyard"
ALGORITHM = "ES256"

Kind = Literal["user", "service_account", "service"]
KINDS: frozenset[str] = frozenset(("user", "service_account", "service"))


@dataclass(frozen=True)
class Principal:
    """Somebody or something that acts: immutable id, name at the moment, kind.

    Attributes:
        privileges: names of the only privileges that the token gives; None if it gives all that the principal has.
    """

    id: str
    name: str
    kind: Kind
    privileges: frozenset[str] | None = None


NOBODY = Principal("", "", "user")
"""The caller of a public RPC."""


@dataclass(frozen=True)
class Call:
    """One incoming call: who makes it, its id (metadata `x-request-id`), and when it must be done.

    Attributes:
        permit: what it was permitted to do to which resource; None if its rule names none, and for a service's own work.
    """

    principal: Principal
    request_id: str
    deadline: datetime | None = None
    permit: Permit | None = None

    def confirm(self, chain: Chain) -> None:
        """Refuse unless the caller may do this to a resource as a transaction has just read it.

        Between the permission layer and the transaction a name may have come to mean another resource, or the resource another
        owner or container. So every rule that changes what a request names says here what it found.

        Raises:
            PermissionDenied: the caller may not.
        """
        if self.permit is not None:
            self.permit.confirm(chain)


_current: ContextVar[Call] = ContextVar("modelyard_call")


def current_call() -> Call:
    """Return the call being served. Set by the interceptors before a handler runs."""
    return _current.get()


def set_current_call(call: Call) -> None:
    """Note the call being served in the current context; for interceptors and tests."""
    _current.set(call)


Keys = Callable[[bool], Awaitable[Mapping[str, Any]]]
"""Returns the public keys by key id; with True it asks the issuer again."""


_KNOWN_TOKENS = 10_000


@dataclass(frozen=True)
class _Verified:
    """What a good token said, which stays true until it expires or its key is withdrawn."""

    principal: Principal
    kid: str
    key: Any
    expires: float


class TokenVerifier:
    """Verifies JWTs of one issuer with its public keys.

    A signature is checked once and remembered under the hash of the token. Rights are never remembered with it: they come from
    the grants of the moment.
    """

    def __init__(self, issuer: str, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, _Verified] = {}  # oldest first

    async def verify(self, token: str) -> Principal:
        """Return the principal that a JWT names.

        Raises:
            TokenExpired: its time is over.
            TokenInvalid: it is malformed, unsigned, or not from this issuer for this audience.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            if known.expires > self._clock() and (await self._keys(False)).get(known.kid) == known.key:
                return known.principal
            self._known.pop(digest, None)
        verified = await self._verify(token)
        if len(self._known) >= _KNOWN_TOKENS:
            self._known.pop(next(iter(self._known)))
        self._known[digest] = verified
        return verified.principal

    async def _verify(self, token: str) -> _Verified:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise TokenInvalid("it is not a JWT; exchange the API token for one") from error
        kid = str(header.get("kid", ""))
        key = await self._key(kid)
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
        privileges = _limit(claims)
        principal = Principal(str(claims["sub"]), str(claims.get("name", "")), cast("Kind", kind), privileges)
        return _Verified(principal, kid, key, float(claims["exp"]))

    async def _key(self, kid: str) -> Any:
        key = (await self._keys(False)).get(kid) or (await self._keys(True)).get(kid)
        if key is None:
            raise TokenInvalid("it was signed with a key that the issuer does not have")
        return key


def _limit(claims: Mapping[str, Any]) -> frozenset[str] | None:
    privileges = claims.get("privileges")
    if privileges is None:
        return None
    if not isinstance(privileges, list):
        raise TokenInvalid("its claim 'privileges' is not a list")
    return frozenset(map(str, privileges))


def public_key(kid: str, x: str, y: str) -> Any:
    """Return the key object of a JWK of kind EC P-256 (RFC 7518 section 6.2)."""
    return ECAlgorithm.from_jwk({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
