"""Several signing keys, one after the other: made, published before they sign, withdrawn after.

The key in the file of the installation is the first one, and encrypts the private halves of those that follow it in the database
(AES-256-GCM, under a key that HKDF derives from the file), so that every process of one installation has all of them.
"""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.identity_models import StoredKey
from modelyard_governance.signing import Signer, SigningKey, UnusableKeyError
from modelyard_governance.store import keys as rows
from modelyard_kit import limits
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.outbox import Event, append

# Rotations of other processes are seen this soon; far sooner than their keys sign.
POLL_SECONDS = 2.0
_NONCE_BYTES = 12
# Clocks differ; a token may be checked by one that is late.
_SKEW = timedelta(seconds=60)

_log = structlog.get_logger()


class KeyRing:
    """Keeps the signer supplied with the keys of the installation.

    Args:
        database: where they are.
        root: the key of the file.
        signer: what signs with them.
        overlap: time between the publication of a key and its first signature: all who verify must look at the keys within it.
        clock: the time.
    """

    def __init__(
        self,
        *,
        database: Database,
        root: ec.EllipticCurvePrivateKey,
        signer: Signer,
        overlap: timedelta,
        clock: Clock,
    ) -> None:
        self._database = database
        self._root = root
        self._signer = signer
        self._overlap = overlap
        self._clock = clock
        self._cipher = AESGCM(_derived(root))

    async def load(self) -> None:
        """Make the key of the file known, and take every key there is; once, before anything is signed.

        Another file than the one before is a new beginning: what that one encrypted is lost, so its keys are withdrawn.
        """
        own = SigningKey.of(self._root, self._clock())

        async def work(connection: AsyncConnection) -> None:
            stored = await rows.every(connection)
            others = [key.kid for key in stored if key.kid != own.public.kid]
            foreign = any(
                key.sealed is None and key.kid in others and not _is_over(key, own.sign_time)
                for key in stored
            )
            if foreign or len(others) == len(stored):
                await rows.withdraw(connection, others, own.sign_time)
                await rows.put(connection, StoredKey(own.public.kid, None, own.sign_time, None))

        await self._database.in_tx(work)
        await self.refresh()

    async def refresh(self) -> None:
        """Take the keys as they are in the database now."""
        now = self._clock()
        stored = await self._database.read(rows.every)
        live = [key for key in stored if key.withdraw_time is None or key.withdraw_time > now]
        self._signer.use([self._opened(key) for key in live])

    async def follow(self) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("signing_keys_not_refreshed", error=str(error))

    async def rotate(self, call: Call, *, withdraw_now: bool) -> tuple[SigningKey, ...]:
        """Make a new key and return all that are published.

        Args:
            call: on whose behalf.
            withdraw_now: sign with it at once and let no older key verify any more, instead of letting both overlap.

        Raises:
            LimitExceeded: too many keys overlap already.
        """
        now = self._clock()
        sign_time = now if withdraw_now else now + self._overlap
        withdraw_time = now if withdraw_now else sign_time + self._signer.lifetime + _SKEW
        made = SigningKey.of(ec.generate_private_key(ec.SECP256R1()), sign_time)

        async def work(connection: AsyncConnection) -> None:
            older = [key for key in await rows.every(connection) if not _is_over(key, now)]
            if not withdraw_now:
                limits.check("signing_keys", len(older) + 1)
            await rows.withdraw(connection, [key.kid for key in older], withdraw_time)
            await rows.forget(connection, now)
            await rows.put(connection, StoredKey(made.public.kid, self._seal(made), sign_time, None))
            link = Link(ResourceType.SIGNING_KEY, made.public.kid, made.public.kid)
            data = {"sign_time": sign_time.isoformat(), "withdrawn": [key.kid for key in older]}
            data["withdraw_time"] = withdraw_time.isoformat()
            event = Event("governance.signing_key.rotated", link, call.principal, call.request_id, data)
            await append(connection, event)

        await self._database.in_tx(work)
        await self.refresh()
        return self._signer.published

    def _seal(self, key: SigningKey) -> bytes:
        plain = key.secret.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, key.public.kid.encode())

    def _opened(self, key: StoredKey) -> SigningKey:
        """Return the key pair.

        Raises:
            InvalidTag: it was encrypted with another key file, or changed.
            UnusableKeyError: another process has put its key file in the place of this one's.
        """
        if key.sealed is None and key.kid != SigningKey.of(self._root, key.sign_time).public.kid:
            raise UnusableKeyError(
                "another process of this installation was started with another signing key file"
            )
        if key.sealed is None:
            return SigningKey.of(self._root, key.sign_time, key.withdraw_time)
        nonce, sealed = key.sealed[:_NONCE_BYTES], key.sealed[_NONCE_BYTES:]
        try:
            plain = self._cipher.decrypt(nonce, sealed, key.kid.encode())
        except InvalidTag:
            _log.exception(
                "signing_key_unreadable", kid=key.kid, fix="start with the key file of this installation"
            )
            raise
        secret = serialization.load_der_private_key(plain, password=None)
        if not isinstance(secret, ec.EllipticCurvePrivateKey):
            raise TypeError(f"signing key {key.kid} is no EC key")
        return SigningKey.of(secret, key.sign_time, key.withdraw_time)


def _is_over(key: StoredKey, now: datetime) -> bool:
    return key.withdraw_time is not None and key.withdraw_time <= now


def _derived(root: ec.EllipticCurvePrivateKey) -> bytes:
    material = root.private_numbers().private_value.to_bytes(32, "big")
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"modelyard signing keys").derive(material)
