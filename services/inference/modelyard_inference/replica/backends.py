"""Other servers that a replica may pass predictions on to: the file in which whoever runs the inference service names them.

    {"grpcs://triton.example.com:8001": {"ca": "/etc/ssl/ours.pem", "metadata": {"authorization": "Bearer ..."}},
     "grpc://127.0.0.1:8001": {}}

A version only says which of them it means: no address that somebody uploads is ever called unless it is in this file.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelyard.remote import FILE_NAME, RemoteModel, check_url, target_of
from modelyard_inference.runtimes import LoadError

_SETTING: Final = "MODELYARD_BACKENDS_FILE"
_KEY: Final = re.compile(r"(?!grpc-)[a-z][a-z0-9_.-]{0,63}(?<!-bin)")
_OTHERS: Final = 0o077


@dataclass(frozen=True)
class Backend:
    """A server that may be called."""

    url: str
    ca: bytes | None = None
    """Certificates (PEM) of who vouches for it; None for those that the system trusts."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What every call to it is sent with, such as a token."""


def model_of(folder: Path) -> RemoteModel:
    """Return where the model of an artifact runs.

    Raises:
        LoadError: the artifact does not say.
    """
    try:
        return RemoteModel.from_json((folder / FILE_NAME).read_text("utf-8"))
    except FileNotFoundError as error:
        raise LoadError(
            f"the artifact has no {FILE_NAME}, which says where a model of the runtime 'remote' runs"
        ) from error
    except (OSError, ValueError) as error:
        raise LoadError(f"{FILE_NAME}: {error}") from error


def find(path: str, url: str) -> Backend:
    """Return what is known of a server that may be called.

    Args:
        path: of the file, which need not exist; empty if none is set.
        url: of the server.

    Raises:
        LoadError: it may not be called, or the file is malformed or can be read by others.
    """
    known = _read(Path(path)) if path and Path(path).exists() else {}
    if url not in known:
        raise LoadError(
            f"{url} is no server that predictions may be passed on to; whoever runs the inference service can name it in "
            f"the file that {_SETTING} points at"
        )
    try:
        return _backend(url, known[url])
    except (OSError, ValueError) as error:
        raise LoadError(f"{_SETTING}: {url}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return _servers(path)
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{_SETTING}: {error}") from error


def _servers(path: Path) -> Mapping[str, Any]:
    if path.stat().st_mode & _OTHERS:
        raise ValueError("others may read it, and it may hold secrets: chmod 600")
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError("must be an object of servers by address")  # noqa: TRY004  one error type for a bad file
    for url in content:
        check_url(url)
    return content


def _backend(url: str, value: Any) -> Backend:
    if not isinstance(value, dict) or value.keys() - {"ca", "metadata"}:
        raise ValueError('must be an object that may have "ca" and "metadata"')
    ca, metadata = value.get("ca", ""), value.get("metadata", {})
    if not isinstance(ca, str) or (ca and not url.startswith("grpcs:")):
        raise ValueError("ca: must be the path of a file of certificates, for a server with grpcs://")
    if not isinstance(metadata, dict):
        raise ValueError("metadata: must be an object of texts")  # noqa: TRY004  one error type for a bad file
    for key, text in metadata.items():
        if (
            not _KEY.fullmatch(key)
            or not isinstance(text, str)
            or not (text.isascii() and text.isprintable())
        ):
            raise ValueError(
                f"metadata: {key[:80]!r} must be lower-case letters, digits, '_', '.' or '-', and its value ASCII text"
            )
    if metadata and not _sealed(url):
        raise ValueError("metadata: would go over the network as it is; use grpcs://")
    return Backend(url, Path(ca).read_bytes() if ca else None, tuple(metadata.items()))


def _sealed(url: str) -> bool:
    """Return whether nobody on the way can read what goes to a server."""
    if not url.startswith("grpc:"):
        return True
    host = target_of(url).rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
