"""Trust roots: keys and certificates whose model signatures count, on everything inside the resource they stand on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import CreateTrustRoot, Directory, TrustRoot, TrustRootKind
from modelyard_governance.store import trust as rows
from modelyard_kit import idempotency, limits
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, InvalidField
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

FIELD = "trust_root.pem"
_METHOD = "CreateTrustRoot"
# Those that the OpenSSF model signing specification allows.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")


class TrustRoots:
    """The use cases of trust roots. That the caller may was checked before."""

    def __init__(self, *, database: Database, directory: Directory, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def create(self, call: Call, command: CreateTrustRoot) -> TrustRoot:
        """Put a trust root on a resource.

        Raises:
            InvalidField: the PEM is not one public key or certificate of a kind that can sign models.
            NotFound: there is no such resource.
            AlreadyExists: the resource has another one of that name.
            LimitExceeded: the resource has too many.
            RequestIdReused: the request id came before with other content.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        anchor = read_anchor(command.pem)
        resource = (await self._directory.chain(command.resource_type, command.resource))[0]
        once = {"principal_id": call.principal.id, "method": _METHOD, "request_id": command.request_id}
        once["fingerprint"] = command.fingerprint

        async def work(connection: AsyncConnection) -> TrustRoot:
            made = await idempotency.replay(connection, **once)
            found = await rows.get(connection, made) if made else None
            if found is not None:
                return found
            if await rows.named(connection, resource.id, command.name) is not None:
                raise AlreadyExists(ResourceType.TRUST_ROOT, _label(resource, command.name))
            limits.check("trust_roots_per_resource", await rows.count(connection, resource.id) + 1)
            root = TrustRoot(
                id=new_id(),
                resource=resource,
                name=command.name,
                kind=anchor.kind,
                pem=anchor.pem,
                fingerprint=anchor.fingerprint,
                expire_time=anchor.expire_time,
                create_time=self._clock(),
            )
            await rows.add(connection, root)
            await idempotency.remember(connection, **once, resource_id=root.id)
            await append(connection, _event("created", root, call))
            return root

        return await self._database.in_tx(work)

    async def delete(self, call: Call, resource_type: ResourceType, resource: str, name: str) -> bool:
        """Take a trust root away; return False when there was none.

        Raises:
            NotFound: there is no such resource.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        link = (await self._directory.chain(resource_type, resource))[0]

        async def work(connection: AsyncConnection) -> bool:
            root = await rows.named(connection, link.id, name)
            if root is None:
                return False
            await rows.remove(connection, root.id)
            await append(connection, _event("deleted", root, call))
            return True

        return await self._database.in_tx(work)

    async def applying(self, resource_type: ResourceType, resource: str) -> list[TrustRoot]:
        """Return what counts for a resource: its own trust roots, then those of its containers. Errors as `delete`."""
        chain = await self._directory.chain(resource_type, resource)
        order = {link.id: distance for distance, link in enumerate(chain)}
        found = await self._database.read(lambda connection: rows.on(connection, list(order)))
        return sorted(found, key=lambda root: (order[root.resource.id], root.name))


@dataclass(frozen=True)
class Anchor:
    """What a PEM holds; `fingerprint` is the SHA-256 of its DER form."""

    kind: TrustRootKind
    pem: str
    fingerprint: str
    expire_time: datetime | None


def read_anchor(pem: str) -> Anchor:
    """Read the one public key or certificate of a PEM, and write it in its usual form.

    Raises:
        InvalidField: it holds something else.
    """
    blocks = _BLOCK.findall(pem)
    if any("PRIVATE KEY" in block for block in blocks):
        raise InvalidField(FIELD, "holds a private key: keep that to yourself, and send the public key")
    if len(blocks) != 1:
        raise InvalidField(FIELD, f"holds {len(blocks)} PEM blocks: send one public key or one certificate")
    try:
        return _certificate(pem) if blocks[0] == "CERTIFICATE" else _public_key(pem)
    except ValueError as error:
        raise InvalidField(FIELD, f"cannot be read: {error}") from error


def _certificate(pem: str) -> Anchor:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    der = certificate.public_bytes(Encoding.DER)
    text = certificate.public_bytes(Encoding.PEM).decode()
    return Anchor(TrustRootKind.CERTIFICATE, text, _fingerprint(der), certificate.not_valid_after_utc)


def _public_key(pem: str) -> Anchor:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise InvalidField(
            FIELD, "is not an elliptic curve key on P-256, P-384 or P-521, as models are signed with"
        )
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Anchor(TrustRootKind.PUBLIC_KEY, text, _fingerprint(der), None)


def _fingerprint(der: bytes) -> str:
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def _label(resource: Link, name: str) -> str:
    return f"{resource.name or 'system'}:{name}"


def _event(verb: str, root: TrustRoot, call: Call) -> Event:
    link = Link(ResourceType.TRUST_ROOT, root.id, _label(root.resource, root.name))
    data = {"resource_id": root.resource.id, "kind": str(root.kind), "fingerprint": root.fingerprint}
    return Event(f"governance.trust_root.{verb}", link, call.principal, call.request_id, data)
