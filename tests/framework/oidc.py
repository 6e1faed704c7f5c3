"""An OpenID Connect provider for tests, and the login that a browser would do there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import aiohttp
from oidc_provider_mock import User, run_server_in_thread

CLIENT_ID = "modelyard"
_REDIRECT = "http://localhost:9/callback"  # nobody listens there: the redirect itself holds the code


@dataclass
class Provider:
    """A running provider."""

    url: str

    async def set_user(self, subject: str, **claims: object) -> None:
        """Make a user, or give it other claims."""
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{self.url}/users/{subject}", json=claims) as answer,
        ):
            answer.raise_for_status()

    async def login(self, subject: str, *, client_id: str = CLIENT_ID) -> str:
        """Log in by the authorization code flow and return the ID token."""
        query = {
            "client_id": client_id,
            "redirect_uri": _REDIRECT,
            "response_type": "code",
            "scope": "openid profile",
        }
        async with aiohttp.ClientSession() as session:
            async with session.post(
                f"{self.url}/oauth2/authorize", params=query, data={"sub": subject}, allow_redirects=False
            ) as answer:
                code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
            form = {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": _REDIRECT,
                "client_id": client_id,
                "client_secret": "any",
            }
            async with session.post(f"{self.url}/oauth2/token", data=form) as answer:
                answer.raise_for_status()
                return str((await answer.json())["id_token"])


@contextmanager
def provider(*users: str) -> Iterator[Provider]:
    """Run a provider within this block."""
    with run_server_in_thread(user_claims=[User(sub=user) for user in users]) as server:
        yield Provider(f"http://localhost:{server.server_port}")
