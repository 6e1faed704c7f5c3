"""Tokens of external issuers: a real OpenID Connect provider, and issuers that lie."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from modelyard_governance import oidc
from modelyard_kit.errors import (
    AlreadyExists,
    InvalidField,
    LimitExceeded,
    NotFound,
    PeerUnavailable,
    PermissionDenied,
    TokenExpired,
    TokenInvalid,
)
from modelyard_kit.limits import LIMITS
from tests.framework.oidc import CLIENT_ID, Provider, provider

from .governance_stack import Caller, Stack, stack
from .test_governance_identities import group
from .test_governance_service import audited


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        yield started


@pytest.fixture
def corp() -> Iterator[Provider]:
    with provider("u-1", "u-2") as running:
        yield running


async def trust(admin: Caller, url: str, **more: Any) -> Any:
    wanted = {"name": "corp", "url": url, "audience": CLIENT_ID, "principal_prefix": "corp."}
    wanted |= {"create_principals": True, **more}
    return (await admin("CreateIssuer", issuer=wanted)).issuer


async def enter(stack: Stack, id_token: str) -> Caller:
    answer = await Caller(stack.stub)("ExchangeToken", id_token=id_token)
    return Caller(stack.stub, answer.access_token)


# The provider's own libraries warn of each other while it answers.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestRealProvider:
    async def test_a_user_logs_in_and_is_the_same_the_next_time(
        self, running_stack: Stack, corp: Provider
    ) -> None:
        admin = await running_stack.admin()
        await trust(admin, corp.url, principal_claim="preferred_username")
        await corp.set_user("u-1", preferred_username="ada", name="Ada Lovelace")
        me = (await (await enter(running_stack, await corp.login("u-1")))("GetCaller")).principal
        assert (me.name, me.kind, me.display_name) == ("corp.ada", 1, "Ada Lovelace")
        assert (me.issuer, me.subject) == ("corp", "u-1")
        await corp.set_user("u-1", preferred_username="renamed")
        again = (await (await enter(running_stack, await corp.login("u-1")))("GetCaller")).principal
        assert again == me  # known by its subject, which never changes
        await audited(admin, "governance.issuer.created", "governance.principal.created")

    async def test_groups_of_the_token_come_and_go_and_others_stay(
        self, running_stack: Stack, corp: Provider
    ) -> None:
        admin = await running_stack.admin()
        await trust(admin, corp.url, groups_claim="groups", group_prefix="corp.")
        for name in ("corp.ml", "corp.ops", "local"):
            await group(admin, name)
        await corp.set_user("u-1", groups=["ml", "ops", "unknown-here", "local"])
        await enter(running_stack, await corp.login("u-1"))
        await admin("AddGroupMember", group="local", member="corp.u-1")

        async def groups() -> dict[str, str]:
            rows = (await admin("ListMemberships", filter="member = 'corp.u-1'")).memberships
            return {row.group: row.issuer for row in rows}

        assert await groups() == {"corp.ml": "corp", "corp.ops": "corp", "local": ""}
        await corp.set_user("u-1", groups=["ops"])
        await enter(running_stack, await corp.login("u-1"))
        assert await groups() == {"corp.ops": "corp", "local": ""}
        assert (await admin("DeleteIssuer", name="corp")).deleted
        assert await groups() == {"local": ""}
        assert not (await admin("DeleteIssuer", name="corp")).deleted
        with pytest.raises(TokenInvalid, match="not known here"):
            await enter(running_stack, await corp.login("u-1"))

    async def test_names_are_never_handed_over(self, running_stack: Stack, corp: Provider) -> None:
        admin = await running_stack.admin()
        await trust(admin, corp.url, principal_claim="preferred_username", principal_prefix="")
        await corp.set_user("u-1", preferred_username="admin")
        with pytest.raises(TokenInvalid, match="belongs to somebody"):
            await enter(running_stack, await corp.login("u-1"))

    async def test_without_automatic_principals_an_administrator_makes_them(
        self, running_stack: Stack, corp: Provider
    ) -> None:
        admin = await running_stack.admin()
        await trust(admin, corp.url, create_principals=False)
        with pytest.raises(TokenInvalid, match="an administrator can"):
            await enter(running_stack, await corp.login("u-1"))
        wanted = {"name": "ada", "kind": "KIND_USER", "issuer": "corp", "subject": "u-1"}
        await admin("CreatePrincipal", principal=wanted)
        caller = await enter(running_stack, await corp.login("u-1"))
        assert (await caller("GetCaller")).principal.name == "ada"
        with pytest.raises(AlreadyExists):
            await admin("CreatePrincipal", principal={**wanted, "name": "other"})
        with pytest.raises(NotFound):
            await admin("CreatePrincipal", principal={**wanted, "name": "x", "issuer": "elsewhere"})

    async def test_disabled_users_and_other_audiences_are_refused(
        self, running_stack: Stack, corp: Provider
    ) -> None:
        admin = await running_stack.admin()
        await trust(admin, corp.url)
        await enter(running_stack, await corp.login("u-1"))
        await admin("DisablePrincipal", name="corp.u-1")
        with pytest.raises(TokenInvalid, match="disabled"):
            await enter(running_stack, await corp.login("u-1"))
        with pytest.raises(TokenInvalid, match="udience"):
            await enter(running_stack, await corp.login("u-2", client_id="another-app"))

    async def test_our_jwt_ends_with_the_token(self, running_stack: Stack, corp: Provider) -> None:
        await trust(await running_stack.admin(), corp.url)
        token = await corp.login("u-1")
        answer = await Caller(running_stack.stub)("ExchangeToken", id_token=token)
        ends = jwt.decode(token, options={"verify_signature": False})["exp"]
        assert answer.expire_time.seconds <= ends


class TestIssuers:
    async def test_only_managers_choose_whom_to_trust(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        for method, fields in (("CreateIssuer", {}), ("DeleteIssuer", {"name": "corp"}), ("ListIssuers", {})):
            with pytest.raises(PermissionDenied):
                await ada(method, **fields)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "http://login.example.com",
            "ftp://localhost",
            "https://a@b.c",
            "https://x/?q=1",
            "//x",
            "http://[::",
        ],
    )
    async def test_addresses_that_could_be_forged_are_refused(self, running_stack: Stack, url: str) -> None:
        with pytest.raises(InvalidField, match=r"issuer\.url"):
            await trust(await running_stack.admin(), url)

    async def test_names_and_addresses_are_unique_and_repetitions_harmless(
        self, running_stack: Stack
    ) -> None:
        admin = await running_stack.admin()
        wanted = {"name": "corp", "url": "https://login.example.com", "audience": "m"}
        first = await admin("CreateIssuer", issuer=wanted, request_id="r")
        assert await admin("CreateIssuer", issuer=wanted, request_id="r") == first
        for other in ({**wanted, "name": "other"}, {**wanted, "url": "https://elsewhere.example.com"}):
            with pytest.raises(AlreadyExists):
                await admin("CreateIssuer", issuer=other)
        assert [issuer.name for issuer in (await admin("ListIssuers")).issuers] == ["corp"]

    async def test_there_are_so_many_issuers_and_not_one_more(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        for number in range(LIMITS["issuers"].maximum):
            await trust(admin, f"https://{number}.example.com", name=f"i{number}")
        with pytest.raises(LimitExceeded, match="issuers"):
            await trust(admin, "https://more.example.com", name="more")


class Issuer:
    """An issuer of the test's making: what it publishes and signs is the test's to say."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.url = ""
        self.kid = "k1"
        self.asked = 0
        self.discovery: dict[str, Any] = {}
        self.padding = ""

    def token(self, **claims: Any) -> str:
        now = datetime.now(UTC)
        payload = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "u",
            "iat": now,
            "exp": now + timedelta(minutes=5),
        }
        return jwt.encode({**payload, **claims}, self.key, algorithm="RS256", headers={"kid": self.kid})

    async def configuration(self, _request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery})

    async def keys(self, _request: web.Request) -> web.Response:
        self.asked += 1
        public = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
        return web.json_response({"keys": [{**public, "kid": self.kid}], "padding": self.padding})


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.configuration)
    app.router.add_get("/keys", issuer.keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


class TestKeysOfIssuers:
    async def test_keys_are_asked_for_once_and_again_for_a_new_one(
        self, running_stack: Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running_issuer() as issuer:
            await trust(await running_stack.admin(), issuer.url)
            for _ in range(3):
                await enter(running_stack, issuer.token())
            assert issuer.asked == 1
            issuer.kid = "k2"
            with pytest.raises(TokenInvalid, match="does not have"):  # asked just before
                await enter(running_stack, issuer.token())
            assert issuer.asked == 1
            monkeypatch.setattr(oidc, "ASK_AGAIN_SECONDS", -1.0)
            await enter(running_stack, issuer.token())
            assert issuer.asked == 2

    @pytest.mark.parametrize(
        ("claims", "refusal"),
        [
            ({"exp": datetime.now(UTC) - timedelta(hours=1)}, TokenExpired),
            ({"iat": datetime.now(UTC) + timedelta(hours=1)}, TokenInvalid),
            ({"aud": "elsewhere"}, TokenInvalid),
            ({"sub": ""}, TokenInvalid),
            ({"iss": "https://elsewhere.example.com"}, TokenInvalid),
        ],
    )
    async def test_bad_tokens_are_refused(self, running_stack: Stack, claims: Any, refusal: Any) -> None:
        async with running_issuer() as issuer:
            await trust(await running_stack.admin(), issuer.url, principal_prefix="")
            with pytest.raises(refusal):
                await enter(running_stack, issuer.token(**claims))

    async def test_forged_tokens_are_refused(self, running_stack: Stack) -> None:
        async with running_issuer() as issuer:
            await trust(await running_stack.admin(), issuer.url)
            await enter(running_stack, issuer.token())
            claims = jwt.decode(issuer.token(), options={"verify_signature": False})
            unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": issuer.kid})
            secret = "x" * 64  # a symmetric algorithm would take the public key as the secret
            symmetric = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": issuer.kid})
            issuer.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            for forged in (unsigned, symmetric, issuer.token(), "eyJ.x.y", "word"):
                with pytest.raises(TokenInvalid):
                    await enter(running_stack, forged)

    @pytest.mark.parametrize(
        "discovery",
        [
            {"issuer": "https://elsewhere.example.com"},
            {"jwks_uri": "http://192.0.2.1/keys"},
            {"jwks_uri": "file:///etc/passwd"},
        ],
    )
    async def test_an_issuer_that_points_elsewhere_is_not_followed(
        self, running_stack: Stack, discovery: dict[str, str]
    ) -> None:
        async with running_issuer() as issuer:
            await trust(await running_stack.admin(), issuer.url)
            issuer.discovery = discovery
            with pytest.raises(PeerUnavailable):
                await enter(running_stack, issuer.token())
            issuer.discovery = {}
            with pytest.raises(PeerUnavailable):  # asked just before
                await enter(running_stack, issuer.token())
            assert issuer.asked == 0

    async def test_an_issuer_that_answers_too_much_or_not_at_all_is_unavailable(
        self, running_stack: Stack
    ) -> None:
        admin = await running_stack.admin()
        async with running_issuer() as issuer:
            await trust(admin, issuer.url)
            issuer.padding = "x" * oidc.ANSWER_BYTES
            with pytest.raises(PeerUnavailable):
                await enter(running_stack, issuer.token())
        with pytest.raises(PeerUnavailable):
            await enter(running_stack, issuer.token())

    async def test_one_or_the_other_token_is_exchanged(self, running_stack: Stack) -> None:
        nobody = Caller(running_stack.stub)
        with pytest.raises(InvalidField, match="not both"):
            await nobody("ExchangeToken", api_token="mya_1", id_token="eyJ")
        longest = LIMITS["id_token_length"].maximum
        with pytest.raises(TokenInvalid):
            await nobody("ExchangeToken", id_token="x" * longest)
        with pytest.raises(InvalidField, match="characters"):
            await nobody("ExchangeToken", id_token="x" * (longest + 1))

    async def test_a_token_names_so_many_groups_and_not_one_more(self, running_stack: Stack) -> None:
        most = LIMITS["groups_per_token"].maximum
        async with running_issuer() as issuer:
            await trust(await running_stack.admin(), issuer.url, groups_claim="groups")
            await enter(running_stack, issuer.token(groups=[str(number) for number in range(most)]))
            with pytest.raises(LimitExceeded, match="groups_per_token"):
                await enter(running_stack, issuer.token(groups=[str(number) for number in range(most + 1)]))
            with pytest.raises(TokenInvalid, match="not a list"):
                await enter(running_stack, issuer.token(groups="ml"))
