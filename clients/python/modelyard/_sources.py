"""What a path stands for when it is uploaded: itself, or the folder in the zip of an OCI model artifact."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from modelyard.oci import artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def opened(path: Path, *, keep_archive: bool) -> AsyncIterator[Path]:
    """Give what to upload, for as long as the block runs; see `modelyard.oci.opened`.

    Raises:
        ArchiveRefused: a zip is hostile or damaged.
        InvalidArgument: a file is not as the artifact's own manifest says.
    """
    if keep_archive:
        yield path
        return
    source = artifact.opened(path)
    found = await asyncio.to_thread(source.__enter__)
    try:
        yield found
    finally:
        await asyncio.to_thread(source.__exit__, None, None, None)
