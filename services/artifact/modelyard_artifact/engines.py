"""Which engine an address of a blob store means."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from modelyard_artifact.blobs.local import DEFAULT_RESERVE, LocalBlobStore

if TYPE_CHECKING:
    from modelyard_artifact.blobs import BlobStore


def check_address(address: str) -> None:
    """Checks the form of an address.

    Raises:
        ValueError: it is neither file:///folder nor s3://bucket/prefix; says what to write.
    """
    parts = urlsplit(address)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"{address}: write file:///absolute/path, with three slashes")
    elif parts.scheme == "s3":
        if not parts.netloc:
            raise ValueError(f"{address}: name the bucket, s3://bucket/prefix")
    else:
        raise ValueError(f"{address}: write file:///absolute/path or s3://bucket/prefix")


def engine(
    address: str,
    *,
    reserve: int = DEFAULT_RESERVE,
    staging: Path | None = None,
    endpoint: str = "",
    public_endpoint: str = "",
    direct: bool = True,
    expiry: timedelta = timedelta(hours=1),
) -> BlobStore:
    """The engine of an address, not yet opened.

    Args:
        address: file:///folder or s3://bucket/prefix.
        reserve: bytes of the local disk to leave free.
        staging: local folder for what is on its way to S3.
        endpoint: address of the S3 server; empty: AWS.
        public_endpoint: address at which clients reach it; empty: the same.
        direct: whether clients get signed addresses of it.
        expiry: how long those work.

    Raises:
        ValueError: the address is malformed, or an S3 one has no staging folder.
    """
    check_address(address)
    parts = urlsplit(address)
    if parts.scheme == "file":
        return LocalBlobStore(Path(unquote(parts.path)), reserve=reserve)
    if staging is None:
        raise ValueError("staging: with S3, name an absolute local folder for what is arriving")
    from modelyard_artifact.blobs.s3 import S3BlobStore

    prefix = parts.path.strip("/")
    return S3BlobStore(
        parts.netloc,
        f"{prefix}/" if prefix else "",
        staging=staging,
        endpoint=endpoint,
        reserve=reserve,
        direct=direct,
        public_endpoint=public_endpoint,
        expiry=expiry,
    )
