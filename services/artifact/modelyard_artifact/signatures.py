"""The rules of signatures: one that does not sign exactly the files of an artifact is refused; who vouches for its key is told.

Trust roots are governance's. A signature is checked against them when it comes and whenever it is shown, because trust roots
come and go; what they said first is kept, so that lost trust can be told from trust that never was. Which trust roots count
depends on the model: those that share an artifact share its signatures, and each has its own trust in them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from modelyard.signing import SIGNATURE_FILE, Examined, Root, SignatureProblem, Trust, examine
from modelyard_artifact import signature_store, store
from modelyard_artifact.errors import SignatureInvalid
from modelyard_artifact.lookup import permitted_model
from modelyard_artifact.models import Signature, Standing
from modelyard_kit import outbox
from modelyard_kit.access import Link, Privilege, ResourceType
from modelyard_kit.errors import InvalidField, NotFound, PermissionDenied
from modelyard_kit.ids import new_id
from modelyard_kit.limits import LIMITS, check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import Blob, Upload
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database
    from modelyard_kit.grants import Grants

MOST_BYTES = LIMITS["signature_bytes"].maximum


class TrustRoots(Protocol):
    """What the rules need to know of governance."""

    async def of_model(self, model: str) -> Sequence[Root]:
        """The trust roots that count for a model. Raises NotFound, PeerUnavailable."""


@dataclass(frozen=True, slots=True)
class AddSignature:
    """Add a signature to an artifact of a model."""

    digest: str
    model: str
    bundle: str


@dataclass(frozen=True, slots=True)
class RemoveSignature:
    """Take a signature away from an artifact of a model."""

    digest: str
    model: str
    signature_id: str


class Signatures:
    """Use cases of signatures."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        catalog: Catalog,
        roots: TrustRoots,
        grants: Grants,
        clock: Clock,
    ) -> None:
        self._database = database
        self._grants = grants
        self._blobs = blobs
        self._catalog = catalog
        self._roots = roots
        self._clock = clock

    async def add(self, call: Call, command: AddSignature) -> Signature:
        """Adds a signature to a committed artifact; the same bundle again returns the first one.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
            SignatureInvalid: it is not a signature of these files.
            LimitExceeded: the artifact has too many.
            PeerUnavailable: catalog or governance does not answer.
        """
        model_id, files = await self._files_of(command.digest, command.model)
        signature = await self._examined(command.digest, command.model, command.bundle, files)

        async def work(connection: AsyncConnection) -> Signature:
            return await add_signature(connection, call, signature, model_id)

        return await self._database.in_tx(work)

    async def remove(self, call: Call, command: RemoveSignature) -> bool:
        """Takes a signature away; False when there is none.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
            PermissionDenied: another model shares the artifact, which the caller may not change.
            PeerUnavailable: the catalog does not answer.
        """
        allowed = {(await permitted_model(self._catalog, call, command.model)).id}
        model_id = next(iter(allowed))

        async def work(connection: AsyncConnection) -> bool | set[str]:
            if await store.get_artifact(connection, command.digest, model_id=model_id) is None:
                raise NotFound("artifact", command.digest)
            others = await store.models_of(connection, command.digest) - allowed
            if others:
                return others
            for each in await signature_store.of_artifact(connection, command.digest, model_id):
                if each.id == command.signature_id:
                    await signature_store.remove(connection, each.id)
                    await outbox.append(connection, _event("unsigned", call, each, self._clock()))
                    return True
            return False

        # Asking is no business of a transaction; who else shares the artifact is asked again in the one that removes.
        while isinstance(found := await self._database.in_tx(work), set):
            for other in found:
                await self._require_edit(call, other)
            allowed |= found
        return found

    async def _require_edit(self, call: Call, model_id: str) -> None:
        try:
            chain = await self._catalog.chain_of_model(model_id)
        except NotFound:
            return  # deleted: nobody asks for its signatures
        if not self._grants.decide(call.principal.id, Privilege.EDIT, chain).allowed:
            # Without its name, which the caller may not know.
            raise PermissionDenied(
                Privilege.EDIT, ResourceType.MODEL, "", "another one has the same artifact"
            )

    async def of_artifact(self, call: Call, digest: str, model: str) -> list[Signature]:
        """Returns the signatures of an artifact, oldest first, checked against the trust roots of this moment.

        A bundle names the hash of every file, and whoever knows those can make an artifact of them. So callers without
        READ_ARTIFACT get signatures without their bundles.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
            PeerUnavailable: catalog or governance does not answer.
        """
        model_id, files = await self._files_of(digest, model)

        async def work(connection: AsyncConnection) -> list[Signature]:
            return await signature_store.of_artifact(connection, digest, model_id)

        stored = await self._database.read(work)
        roots = await self._roots.of_model(model) if stored else ()
        found = [await asyncio.to_thread(_reconsidered, each, files, roots) for each in stored]
        return found if self._may_read(call) else [replace(each, bundle="") for each in found]

    def _may_read(self, call: Call) -> bool:
        """Whether the caller may read the files of the model that the call is about."""
        if call.permit is None:
            return True
        return self._grants.decide(call.principal.id, Privilege.READ_ARTIFACT, call.permit.chain).allowed

    async def of_upload(self, upload: Upload, bundles: Sequence[str]) -> list[Signature]:
        """Examines the signatures that come with an upload: those given, and `model.sig` among its files.

        Raises:
            SignatureInvalid: one does not sign these files.
            PeerUnavailable: governance does not answer.
        """
        given = dict.fromkeys((*bundles, *await self._inside(upload.digest)))
        if not given:
            return []

        async def work(connection: AsyncConnection) -> Mapping[str, str]:
            return await signature_store.digests_of(connection, upload.digest)

        files = await self._database.read(work)
        return [await self._examined(upload.digest, upload.model, bundle, files) for bundle in given]

    async def _inside(self, digest: str) -> list[str]:
        """The signature among the files of an artifact, if its content has come: commit finds out about missing content."""

        async def work(connection: AsyncConnection) -> Blob | None:
            file = await store.get_file(connection, digest, SIGNATURE_FILE)
            known = file and await store.announced_blob(connection, digest, file.sha256)
            return known[0] if known and known[1] else None

        blob = await self._database.read(work)
        if blob is None:
            return []
        if blob.size > MOST_BYTES:
            raise SignatureInvalid(f"in {SIGNATURE_FILE} has {blob.size} bytes; {MOST_BYTES} are the most")
        content = b"".join([piece async for piece in self._blobs.read(blob, 0, blob.size)])
        try:
            return [content.decode()]
        except UnicodeDecodeError as error:
            raise SignatureInvalid(f"in {SIGNATURE_FILE} is not UTF-8 text") from error

    async def _files_of(self, digest: str, model_name: str) -> tuple[str, Mapping[str, str]]:
        """The id of a model, and the digests of the files of one of its artifacts."""
        model = await self._catalog.model(model_name)

        async def work(connection: AsyncConnection) -> tuple[str, Mapping[str, str]]:
            if await store.get_artifact(connection, digest, model_id=model.id) is None:
                raise NotFound("artifact", digest)
            return model.id, await signature_store.digests_of(connection, digest)

        return await self._database.read(work)

    async def _examined(self, digest: str, model: str, bundle: str, files: Mapping[str, str]) -> Signature:
        roots = await self._roots.of_model(model)
        # In a thread: a statement of 100,000 files takes a while.
        found = await asyncio.to_thread(_examine, bundle, files, roots)
        if found.trust is Trust.EXPIRED:
            raise SignatureInvalid(f"has a certificate that ran out, {found.signer}, or one of its issuer")
        standing = Standing.TRUSTED if found.trust is Trust.TRUSTED else Standing.UNKNOWN_KEY
        return Signature(new_id(), digest, found.signer, standing, found.root, bundle, self._clock())


async def add_signature(
    connection: AsyncConnection, call: Call, signature: Signature, model_id: str
) -> Signature:
    """Writes a signature that was examined for a model, and its event, in the caller's transaction.

    Returns:
        It, or the one with the same bundle that was there before.

    Raises:
        LimitExceeded: the artifact has too many.
    """
    known = await signature_store.of_artifact(connection, signature.digest, model_id)
    same = next((each for each in known if each.bundle == signature.bundle), None)
    if same is None:
        check("signatures_per_artifact", len(known) + 1)
        await signature_store.add(connection, signature)
        await outbox.append(connection, _event("signed", call, signature, signature.create_time))
    kept = same or signature
    if signature.trust_root:
        await signature_store.trust(connection, kept.id, model_id, signature.trust_root)
    return replace(kept, standing=signature.standing, trust_root=signature.trust_root)


def _event(verb: str, call: Call, signature: Signature, now: datetime) -> outbox.Event:
    return outbox.Event(
        type=f"artifact.artifact.{verb}",
        resource=Link(ResourceType.ARTIFACT, signature.digest, signature.digest),
        actor=call.principal,
        request_id=call.request_id,
        data={
            "signature_id": signature.id,
            "signer": signature.signer,
            "trust": str(signature.standing),
            "trust_root": signature.trust_root,
        },
        time=now,
    )


def _examine(bundle: str, files: Mapping[str, str], roots: Sequence[Root]) -> Examined:
    if len(bundle.encode()) > MOST_BYTES:
        raise InvalidField("bundle", f"has {len(bundle.encode())} bytes; {MOST_BYTES} are the most")
    try:
        return examine(bundle, files, roots)
    except SignatureProblem as error:
        raise SignatureInvalid(str(error)) from error


def _reconsidered(signature: Signature, files: Mapping[str, str], roots: Sequence[Root]) -> Signature:
    try:
        found = examine(signature.bundle, files, roots)
    except SignatureProblem:
        # Accepted once, with a key unknown then; the trust root that came since shows that another key made it.
        found = Examined(signature.signer, Trust.UNKNOWN_KEY)
    if found.trust is Trust.TRUSTED:
        return replace(signature, standing=Standing.TRUSTED, trust_root=found.root, signer=found.signer)
    lost = bool(signature.trust_root) or found.trust is Trust.EXPIRED
    return replace(signature, standing=Standing.NO_LONGER if lost else Standing.UNKNOWN_KEY)
