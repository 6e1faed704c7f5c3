"""The bearer token of calls: obtained from the API token, kept, and renewed before it ends."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Exchange = Callable[[str], Awaitable[tuple[str, datetime]]]

RENEW_BEFORE = timedelta(seconds=60)
"""Renewed this long before its end, or when a fifth of its life is left, whichever is later."""


def is_jwt(token: str) -> bool:
    """Whether the token is a JWT, and no API token."""
    return token.startswith("eyJ") and token.count(".") == 2


def is_external(token: str) -> bool:
    """Whether the token is a JWT of an external issuer, to be exchanged: ours say what kind of principal they are for."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return is_jwt(token) and "kind" not in claims
    except (ValueError, IndexError, TypeError):
        return False


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TokenSource:
    """Gives the bearer token of each call; one exchange serves all calls that wait for it."""

    def __init__(self, token: str, exchange: Exchange, now: Callable[[], datetime] = _utc_now) -> None:
        self._token = token
        self._exchange = exchange
        self._now = now
        self._lock = asyncio.Lock()
        self._as_it_is = is_jwt(token) and not is_external(token)
        self._bearer = token if self._as_it_is else ""
        self._renew_at = datetime.max.replace(tzinfo=UTC)
        self._ends_at = datetime.max.replace(tzinfo=UTC)

    @property
    def renewable(self) -> bool:
        """Whether a refused bearer token can be replaced by a new one."""
        return bool(self._token) and not self._as_it_is

    async def bearer(self) -> str:
        """The token to send; empty when the client has none."""
        if not self.renewable or (self._bearer and self._now() < self._renew_at):
            return self._bearer
        async with self._lock:
            if not self._bearer or self._now() >= self._renew_at:
                await self._renew()
        return self._bearer

    def forget(self, bearer: str) -> None:
        """Drop a token that was refused, unless it was replaced already."""
        if bearer == self._bearer and self.renewable:
            self._bearer = ""

    async def _renew(self) -> None:
        asked_at = self._now()
        try:
            bearer, ends_at = await self._exchange(self._token)
        except ModelyardError:
            # Governance may be away for a while; what we hold still opens doors until it ends.
            if self._bearer and asked_at < self._ends_at:
                return
            raise
        self._bearer = bearer
        self._ends_at = ends_at
        self._renew_at = ends_at - min(RENEW_BEFORE, (ends_at - asked_at) / 5)
