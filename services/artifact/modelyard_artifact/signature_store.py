"""The rows of signatures. Inside a transaction that the rules opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from modelyard_artifact.models import Signature, Standing
from modelyard_artifact.tables import manifest_files, signature_trust, signatures

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def digests_of(connection: AsyncConnection, digest: str) -> dict[str, str]:
    """SHA-256 of every file of a manifest, by path."""
    query = select(manifest_files.c.path, manifest_files.c.sha256).where(manifest_files.c.digest == digest)
    return {row.path: row.sha256 for row in await connection.execute(query)}


async def add(connection: AsyncConnection, signature: Signature) -> None:
    """Writes a signature; by whom it is trusted, `trust` does."""
    await connection.execute(
        insert(signatures).values(
            id=signature.id,
            digest=signature.digest,
            signer=signature.signer,
            bundle=signature.bundle,
            create_time=signature.create_time,
        )
    )


async def trust(connection: AsyncConnection, signature_id: str, model_id: str, trust_root: str) -> None:
    """Notes which trust root vouches for a signature in a model; the first one stays."""
    values = {"signature_id": signature_id, "model_id": model_id, "trust_root": trust_root}
    await connection.execute(upsert(signature_trust).values(values).on_conflict_do_nothing())


async def remove(connection: AsyncConnection, signature_id: str) -> None:
    """Removes a signature."""
    await connection.execute(delete(signatures).where(signatures.c.id == signature_id))


async def of_artifact(connection: AsyncConnection, digest: str, model_id: str) -> list[Signature]:
    """The signatures of an artifact as they were when they came for a model, oldest first."""
    of_model = and_(signature_trust.c.signature_id == signatures.c.id, signature_trust.c.model_id == model_id)
    query = (
        select(signatures, func.coalesce(signature_trust.c.trust_root, "").label("trust_root"))
        .outerjoin(signature_trust, of_model)
        .where(signatures.c.digest == digest)
        .order_by(signatures.c.create_time, signatures.c.id)
    )
    return [_signature(row) for row in await connection.execute(query)]


def _signature(row: Any) -> Signature:
    return Signature(
        id=row.id,
        digest=row.digest,
        signer=row.signer,
        standing=Standing.TRUSTED if row.trust_root else Standing.UNKNOWN_KEY,
        trust_root=row.trust_root,
        bundle=row.bundle,
        create_time=row.create_time,
    )
