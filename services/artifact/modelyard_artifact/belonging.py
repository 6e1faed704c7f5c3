"""The rules of belonging: a blob store is of one installation, and has what that installation's database knows.

Whatever lies in the store and is unknown to the database is garbage to the collector. A service with another database, or an
empty one, would so delete everything; and one that finds an empty folder, because a volume was not mounted, or the store of
before a move, would promise content that is not there. So the store carries a mark, and nobody serves before it was looked at.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modelyard_artifact import storage_store
from modelyard_artifact.blobs.marks import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.models import Blob
    from modelyard_kit.db import Database

_LOOKED_FOR = 50
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class WrongBlobStoreError(RuntimeError):
    """The blob store is another installation's, or lacks what this one stored."""


async def claim(database: Database, blobs: BlobStore) -> None:
    """Makes sure that a store is this installation's and has its content; one that is nobody's becomes its own.

    Raises:
        WrongBlobStoreError: it is another's, or does not have the content, or only a part.
    """
    ours, mark = await _installation(database), await blobs.mark()
    if mark is None:
        await _refuse_strange(database, blobs, may_be_empty=False)
        mark = await _write_first(blobs, ours)
    _require_ours(mark, ours)
    if mark.moves < ours.moves:
        raise WrongBlobStoreError(
            "everything was moved from this blob store to another, which is in use since: set MODELYARD_BLOBS to that one, or"
            " bring everything back with `modelyard artifacts migrate`"
        )
    if not mark.complete:
        raise WrongBlobStoreError(
            "a move into this blob store has not ended: run `modelyard artifacts migrate` again until it says that all"
            " is right, or go on with the store of before"
        )
    if mark.moves > ours.moves:
        await _arrive(database, blobs, mark)


async def begin_move(database: Database, target: BlobStore) -> None:
    """Makes a store this installation's next one; it does not count as complete before `end_move`.

    Raises:
        WrongBlobStoreError: it is another's.
    """
    ours, mark = await _installation(database), await target.mark()
    following = Mark(ours.installation, ours.moves + 1, complete=False)
    if mark is None:
        await _refuse_strange(database, target, may_be_empty=True)
        mark = await _write_first(target, following)
    _require_ours(mark, ours)
    if mark.moves <= ours.moves:  # was left before, and is to be had again
        await target.write_mark(following, first=False)


async def end_move(database: Database, target: BlobStore) -> None:
    """Says that everything is in the store: a service that starts on it now may serve from it, and from no other afterwards."""
    ours = await _installation(database)
    await target.write_mark(Mark(ours.installation, ours.moves + 1, complete=True), first=False)


async def _arrive(database: Database, blobs: BlobStore, mark: Mark) -> None:
    """The first start after a move."""
    since = await _missing(blobs, await _newest(database))
    if since:
        raise WrongBlobStoreError(
            f"content was stored after the move into this blob store ended, such as {since[0].sha256}: run"
            " `modelyard artifacts migrate` once more"
        )
    await database.in_tx(lambda connection: storage_store.set_moves(connection, mark.moves))


async def _refuse_strange(database: Database, blobs: BlobStore, *, may_be_empty: bool) -> None:
    """Refuses a store without a mark that cannot be this installation's. Single blobs may have been lost, but not all."""
    known = await _newest(database)
    if len(await _missing(blobs, known)) < len(known):
        return
    if await _has_content(blobs):
        raise WrongBlobStoreError(
            f"the blob store has content, and none of the {len(known)} blobs that this installation stored last: it belongs"
            " to another, or the database is not the right one; give this installation a folder, bucket or prefix of its own"
        )
    if known and not may_be_empty:
        raise WrongBlobStoreError(
            f"the blob store has none of {len(known)} blobs that were looked for, such as {known[0].sha256}: is the"
            " volume mounted, and is this the store of before? `modelyard artifacts migrate` brings everything to another"
        )


def _require_ours(mark: Mark, ours: Mark) -> None:
    if mark.installation != ours.installation:
        raise WrongBlobStoreError(
            f"the blob store belongs to another installation ({mark.installation}; this one is {ours.installation}), and each"
            " would delete what the other stored: give this one a folder, bucket or prefix of its own"
        )


async def _write_first(blobs: BlobStore, mark: Mark) -> Mark:
    """Marks a store that is nobody's; returns the mark of whoever was first."""
    await blobs.write_mark(mark, first=True)
    return await blobs.mark() or mark


async def _missing(blobs: BlobStore, wanted: Sequence[Blob]) -> list[Blob]:
    sizes = await asyncio.gather(*(blobs.size(blob.sha256) for blob in wanted))
    return [blob for blob, size in zip(wanted, sizes, strict=True) if size is None]


async def _has_content(blobs: BlobStore) -> bool:
    async for _ in blobs.stored(_END_OF_TIME):
        return True
    return False


async def _newest(database: Database) -> list[Blob]:
    async def work(connection: AsyncConnection) -> list[Blob]:
        return await storage_store.newest(connection, _LOOKED_FOR)

    return await database.read(work)


async def _installation(database: Database) -> Mark:
    return await database.in_tx(storage_store.read_installation)
