"""The rows of signatures. Inside a transaction that the rules opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from modelyard_artifact.models import Signature, Standing
from modelyard_artifact.tables import manifest_files, signatures

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def digests_of(connection: AsyncConnection, digest: str) -> dict[str, str]:
    """SHA-256 of every file of a manifest, by path."""
    query = select(manifest_files.c.path, manifest_files.c.sha256).where(manifest_files.c.digest == digest)
    return {row.path: row.sha256 for row in await connection.execute(query)}


async def add(connection: AsyncConnection, signature: Signature) -> None:
    """Writes a signature."""
    await connection.execute(
        insert(signatures).values(
            id=signature.id,
            digest=signature.digest,
            signer=signature.signer,
            trust_root=signature.trust_root,
            bundle=signature.bundle,
            create_time=signature.create_time,
        )
    )


async def remove(connection: AsyncConnection, digest: str, signature_id: str) -> Signature | None:
    """Removes a signature of an artifact and returns what it was; None if there is none."""
    gone = delete(signatures).where(signatures.c.digest == digest, signatures.c.id == signature_id)
    row = (await connection.execute(gone.returning(signatures))).one_or_none()
    return _signature(row) if row else None


async def of_artifact(connection: AsyncConnection, digest: str) -> list[Signature]:
    """The signatures of an artifact as they were when they came, oldest first."""
    query = select(signatures).where(signatures.c.digest == digest)
    rows = await connection.execute(query.order_by(signatures.c.create_time, signatures.c.id))
    return [_signature(row) for row in rows]


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
