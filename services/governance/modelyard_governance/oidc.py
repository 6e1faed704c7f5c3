"""Tokens of external issuers (OpenID Connect Core 1.0): their keys, asked for with bounds and kept, and the check of a token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt
import structlog

from modelyard_governance.identity_models import Issuer
from modelyard_kit.config import is_local
from modelyard_kit.errors import PeerUnavailable, TokenExpired, TokenInvalid

if TYPE_CHECKING:
    import aiohttp

# Signatures with a public key only: with HS256 the public key would be the secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
TIMEOUT_SECONDS = 5.0
ANSWER_BYTES = 256 * 1024
KEEP_SECONDS = 600.0
# Tokens with unknown keys must not become requests to an issuer without bound.
ASK_AGAIN_SECONDS = 10.0
_LEEWAY_SECONDS = 30
_DISCOVERY = "/.well-known/openid-configuration"

_log = structlog.get_logger()


def is_allowed(url: str) -> bool:
    """Return whether an issuer may be at this address: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or parts.username or parts.fragment or parts.query:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_local(f"{parts.hostname}:{port or 80}"))


def issuer_of(token: str) -> str:
    """Return the issuer that a token names, which nothing proves yet.

    Raises:
        TokenInvalid: it is no JWT.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise TokenInvalid("it is not a JWT of an issuer") from error
    return str(claims.get("iss", ""))


@dataclass(frozen=True)
class _Known:
    keys: Mapping[str, jwt.PyJWK]
    asked: float

    def key(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of that id; a token may leave the id out where the issuer has one key alone."""
        return next(iter(self.keys.values())) if not kid and len(self.keys) == 1 else self.keys.get(kid)


class IssuerKeys:
    """The public keys of issuers, each set kept for ten minutes and asked for again when a key is missing."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._failed: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}  # a slow issuer holds up nobody else's users

    async def claims(self, issuer: Issuer, token: str) -> Mapping[str, Any]:
        """Check a token and return what it says.

        Raises:
            TokenInvalid: it is not a good token of this issuer for this audience.
            TokenExpired: its time is over.
            PeerUnavailable: the issuer cannot be asked for its keys.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(issuer.url, str(header.get("kid", "")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=issuer.audience,
                issuer=issuer.url,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenExpired from error
        except (jwt.InvalidTokenError, jwt.InvalidKeyError) as error:
            raise TokenInvalid(str(error)) from error
        return claims

    async def _key(self, url: str, kid: str) -> jwt.PyJWK:
        async with self._locks.setdefault(url, asyncio.Lock()):
            known = self._known.get(url)
            now = asyncio.get_running_loop().time()
            wait = KEEP_SECONDS if known and known.key(kid) else ASK_AGAIN_SECONDS
            if known is None or now - known.asked > wait:
                known = self._known[url] = _Known(await self._ask(url, now), now)
        key = known.key(kid)
        if key is None:
            raise TokenInvalid("it was signed with a key that its issuer does not have")
        return key

    async def _ask(self, url: str, now: float) -> Mapping[str, jwt.PyJWK]:
        if now - self._failed.get(url, float("-inf")) <= ASK_AGAIN_SECONDS:
            raise PeerUnavailable(url)
        try:
            return await _ask(url)
        except PeerUnavailable:
            self._failed[url] = now
            raise


async def _ask(url: str) -> Mapping[str, jwt.PyJWK]:
    import aiohttp  # takes long, and a service may have no issuer but itself

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            discovery = await _document(session, url.rstrip("/") + _DISCOVERY)
            document = await _document(session, _key_address(url, discovery))
        return {key.key_id or "": key for key in jwt.PyJWKSet.from_dict(document).keys}
    except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
        _log.warning("issuer_not_reached", issuer=url, error=str(error) or type(error).__name__)
        raise PeerUnavailable(url) from error


def _key_address(url: str, discovery: Mapping[str, Any]) -> str:
    address = str(discovery.get("jwks_uri", ""))
    if discovery.get("issuer") != url or not is_allowed(address):
        raise ValueError(f"it says it is issuer {discovery.get('issuer')!r} with keys at {address!r}")
    return address


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return a JSON object; redirects are not followed, for they could lead anywhere."""
    async with session.get(url, allow_redirects=False) as response:
        body = await response.content.read(ANSWER_BYTES + 1)
        while len(body) <= ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES + 1)):
            body += more
    if response.status != 200 or len(body) > ANSWER_BYTES:
        raise ValueError(
            f"{url} answered {response.status} with {len(body)} bytes; {ANSWER_BYTES} are the most"
        )
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} is no JSON object")  # noqa: TRY004 - of the issuer's making, as the others
    return document
