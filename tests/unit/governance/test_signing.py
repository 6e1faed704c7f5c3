"""The signing key and its JWTs."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from modelyard_governance.models import Account
from modelyard_governance.signing import Signer, UnusableKeyError, load_or_create_key
from modelyard_kit import auth
from modelyard_kit.auth import Principal, TokenVerifier, public_key
from modelyard_kit.errors import TokenExpired, TokenInvalid

ADA = Account("1", "ada", "user", "Ada", datetime(2026, 1, 1, tzinfo=UTC))


def signer(*, issuer: str = "modelyard") -> Signer:
    return Signer(ec.generate_private_key(ec.SECP256R1()), issuer=issuer, lifetime=timedelta(minutes=15))


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_jwt_names_its_principal() -> None:
    ours = signer()
    token, expire_time = ours.sign(ADA, now=now())
    assert await TokenVerifier("modelyard", ours.keys).verify(token) == Principal("1", "ada", "user")
    assert timedelta(minutes=14) < expire_time - now() <= timedelta(minutes=15)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": ours.public.kid}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"iss", "aud", "sub", "name", "kind", "iat", "exp", "jti"}


async def test_the_published_key_verifies() -> None:
    ours = signer()
    token, _ = ours.sign(ADA, now=now())
    key = public_key(ours.public.kid, ours.public.x, ours.public.y)

    async def keys(_refresh: bool) -> dict[str, object]:
        return {ours.public.kid: key}

    assert (await TokenVerifier("modelyard", keys).verify(token)).name == "ada"


async def test_a_jwt_ends_with_its_api_token() -> None:
    soon = now() + timedelta(minutes=1)
    _, expire_time = signer().sign(ADA, now=now(), until=soon)
    assert expire_time == soon.replace(microsecond=0)


async def test_old_and_foreign_jwts_are_refused() -> None:
    ours = signer()
    verifier = TokenVerifier("modelyard", ours.keys)
    with pytest.raises(TokenExpired):
        await verifier.verify(ours.sign(ADA, now=now() - timedelta(hours=1))[0])
    with pytest.raises(TokenInvalid, match="key"):
        await verifier.verify(signer().sign(ADA, now=now())[0])
    elsewhere = Signer(ours.published[0].secret, issuer="elsewhere", lifetime=timedelta(minutes=15))
    with pytest.raises(TokenInvalid, match="issuer"):
        await verifier.verify(elsewhere.sign(ADA, now=now())[0])


async def test_a_remembered_jwt_ends_with_its_time_and_with_its_key() -> None:
    ours, other = signer(), signer()
    published = await ours.keys()
    times = [now()]

    async def keys(_refresh: bool) -> Mapping[str, object]:
        return published

    def clock() -> float:
        return times[-1].timestamp()

    verifier = TokenVerifier("modelyard", keys, clock=clock)
    token, expire_time = ours.sign(ADA, now=now())
    for _ in range(2):
        assert (await verifier.verify(token)).name == "ada"
    published = await other.keys()
    with pytest.raises(TokenInvalid, match="key"):
        await verifier.verify(token)
    published = await ours.keys()
    assert (await verifier.verify(token)).name == "ada"
    times.append(expire_time)
    published = {}  # whoever asks again is told so
    with pytest.raises(TokenInvalid, match="key"):
        await verifier.verify(token)


async def test_remembered_jwts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_KNOWN_TOKENS", 3)
    ours = signer()
    verifier = TokenVerifier("modelyard", ours.keys)
    for _ in range(5):
        await verifier.verify(ours.sign(ADA, now=now())[0])
    assert len(verifier._known) == 3


def test_the_key_id_is_the_thumbprint() -> None:
    key = ec.derive_private_key(1, ec.SECP256R1())
    thumbs = {Signer(key, issuer=issuer, lifetime=timedelta(1)).public for issuer in ("a", "b")}
    assert len(thumbs) == 1
    assert len(thumbs.pop().kid) == 43


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: load_or_create_key(path), range(8)))
    assert len({key.private_numbers().private_value for key in keys}) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["key.pem"]


def test_other_keys_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key")
    with pytest.raises(UnusableKeyError, match=r"key\.pem: not an unencrypted private key"):
        load_or_create_key(path)
    other: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
    ]
    for key in other:
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        with pytest.raises(UnusableKeyError, match="P-256"):
            load_or_create_key(path)
